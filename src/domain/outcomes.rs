//! The order in which outcomes are told, and where somebody is in it.
//!
//! Transactions get their numbers before they are committed, and are committed in any order. So a number alone is no
//! cursor: one that is lower may appear later. What was told is a snapshot: all that it sees was told, and nothing else.
//! The next snapshot is told by the numbers of the transactions that the one before did not see.

use std::{cmp::Ordering, fmt};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::id::PoolId;

/// The most transactions that a cursor has as in progress: more than a database has connections.
const MAX_IN_PROGRESS: u64 = 4096;
/// No cursor is longer, in characters.
pub const MAX_CURSOR: usize = 16 * 1024;
/// The first byte of a cursor.
const VERSION: u8 = 1;

/// A history in which transactions are numbered: a database, between two failovers. A later one is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Era {
    /// Postgres's system identifier: the time at which the database was made, first of all.
    pub system_id: i64,
    /// Rises at every failover and restore.
    pub timeline: i32,
}

/// Which transactions of an era somebody sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// All of the eras before are seen.
    pub era: Era,
    /// From here on none is seen.
    pub next_xid: i64,
    /// Those before that are not seen, in their order.
    pub in_progress: Vec<i64>,
}

/// An outcome, by where it stands: the transaction that recorded it, and which of that transaction's it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// The transaction's era.
    pub era: Era,
    /// Its number.
    pub xid: i64,
    /// Which of its outcomes, counted from 0.
    pub number: u32,
}

/// What was told: all that a moment sees, and perhaps the first of what the next one sees besides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// All that it sees was told.
    pub seen: Moment,
    /// Of what this one sees besides, what is up to the last one was told. `None`: nothing.
    pub round: Option<Moment>,
    /// The outcome that was told last; `None` where there was none yet.
    pub last: Option<Mark>,
}

impl Moment {
    /// The one that sees nothing.
    pub const BEFORE_ALL: Self = Self {
        era: Era { system_id: i64::MIN, timeline: 0 },
        next_xid: 0,
        in_progress: Vec::new(),
    };

    /// Reads what Postgres calls a snapshot: `xmin:xmax:xid,…`.
    pub fn of_snapshot(era: Era, text: &str) -> Option<Self> {
        let (_, rest) = text.split_once(':')?;
        let (next, list) = rest.split_once(':')?;
        let list = list.split(',').filter(|xid| !xid.is_empty()).map(str::parse);
        let mut in_progress = list.collect::<Result<Vec<i64>, _>>().ok()?;
        in_progress.sort_unstable();
        Some(Self { era, next_xid: next.parse().ok()?, in_progress })
    }

    /// Whether it sees a transaction.
    pub fn sees(&self, era: Era, xid: i64) -> bool {
        match era.cmp(&self.era) {
            Ordering::Less => true,
            Ordering::Equal => xid < self.next_xid && self.in_progress.binary_search(&xid).is_err(),
            Ordering::Greater => false,
        }
    }

    /// Whether it is the later one. Snapshots of one database see more and more: the next transaction's number rises, or
    /// another one of those in progress has ended.
    pub fn is_after(&self, other: &Self) -> bool {
        let key = |moment: &Self| {
            (moment.era, moment.next_xid, std::cmp::Reverse(moment.in_progress.len()))
        };
        key(self) > key(other)
    }
}

impl Position {
    /// All that this moment sees was told.
    pub fn at(seen: Moment, last: Option<Mark>) -> Self {
        Self { seen, round: None, last }
    }

    /// After an outcome that `round` sees, when all that is before it there was told.
    pub fn told(&self, round: &Moment, mark: Mark) -> Self {
        Self { seen: self.seen.clone(), round: Some(round.clone()), last: Some(mark) }
    }

    /// Whether an outcome is still to be told.
    pub fn wants(&self, mark: Mark) -> bool {
        let in_round = self.round.as_ref().is_none_or(|round| round.sees(mark.era, mark.xid));
        let is_told = self.round.is_some() && self.last.is_some_and(|last| mark <= last);
        in_round && !is_told && !self.seen.sees(mark.era, mark.xid)
    }

    /// The latest moment that it knows.
    pub fn newest(&self) -> &Moment {
        self.round.as_ref().unwrap_or(&self.seen)
    }

    /// The transactions in progress at the moment before whose outcomes may be wanted.
    pub fn in_progress(&self) -> Vec<i64> {
        let told = self.told_of_round().filter(|last| last.era >= self.seen.era);
        let from = match told {
            Some(last) if last.era == self.seen.era => last.xid,
            Some(_) => i64::MAX,
            None => i64::MIN,
        };
        self.seen.in_progress.iter().copied().filter(|xid| *xid >= from).collect()
    }

    /// The transaction from which on all outcomes may be wanted.
    pub fn from(&self) -> (Era, i64) {
        let all = (self.seen.era, self.seen.next_xid);
        self.told_of_round().map_or(all, |last| all.max((last.era, last.xid)))
    }

    fn told_of_round(&self) -> Option<Mark> {
        self.round.as_ref().and(self.last)
    }

    /// The cursor of this position in a pool.
    pub fn cursor(&self, pool_id: &PoolId) -> String {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&hash(pool_id.as_str().as_bytes()).to_be_bytes());
        write_moment(&mut bytes, &self.seen);
        bytes.push(u8::from(self.round.is_some()) | (u8::from(self.last.is_some()) << 1));
        if let Some(round) = &self.round {
            write_moment(&mut bytes, round);
        }
        if let Some(last) = self.last {
            write_era(&mut bytes, last.era);
            write(&mut bytes, last.xid.unsigned_abs());
            write(&mut bytes, last.number.into());
        }
        let check = hash(&bytes);
        bytes.extend_from_slice(&check.to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a cursor of this pool.
    pub fn of_cursor(pool_id: &PoolId, cursor: &str) -> Result<Self, BadCursor> {
        if cursor.len() > MAX_CURSOR {
            return Err(BadCursor::Damaged);
        }
        let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| BadCursor::Damaged)?;
        let (bytes, check) = bytes.split_last_chunk::<4>().ok_or(BadCursor::Damaged)?;
        if hash(bytes).to_be_bytes() != *check {
            return Err(BadCursor::Damaged);
        }
        let mut reader = Reader(bytes);
        if reader.byte() != Some(VERSION) {
            return Err(BadCursor::Damaged);
        }
        if reader.chunk::<4>() != Some(hash(pool_id.as_str().as_bytes()).to_be_bytes()) {
            return Err(BadCursor::OfAnotherPool);
        }
        reader.position().filter(|_| reader.0.is_empty()).ok_or(BadCursor::Damaged)
    }
}

/// Why a text is no cursor of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadCursor {
    /// It is none, or not the whole of one.
    Damaged,
    /// It is one.
    OfAnotherPool,
}

impl fmt::Display for BadCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Damaged => {
                "must be empty, \"now\", or a cursor that WatchRedemptions told, unchanged"
            }
            Self::OfAnotherPool => "must be a cursor of this pool: it is one of another pool",
        })
    }
}

/// FNV-1a: finds what was cut off or mixed up; protects nothing.
fn hash(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

fn write(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn write_era(bytes: &mut Vec<u8>, era: Era) {
    bytes.extend_from_slice(&era.system_id.to_be_bytes());
    bytes.extend_from_slice(&era.timeline.to_be_bytes());
}

/// Those in progress by their distances, which are small.
fn write_moment(bytes: &mut Vec<u8>, moment: &Moment) {
    write_era(bytes, moment.era);
    write(bytes, moment.next_xid.unsigned_abs());
    write(bytes, moment.in_progress.len() as u64);
    let mut above = moment.next_xid;
    for xid in moment.in_progress.iter().rev() {
        write(bytes, above.abs_diff(*xid));
        above = *xid;
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn chunk<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    fn byte(&mut self) -> Option<u8> {
        self.chunk::<1>().map(|[byte]| byte)
    }

    fn number(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..63).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn xid(&mut self) -> Option<i64> {
        i64::try_from(self.number()?).ok()
    }

    fn era(&mut self) -> Option<Era> {
        let system_id = i64::from_be_bytes(self.chunk()?);
        Some(Era { system_id, timeline: i32::from_be_bytes(self.chunk()?) })
    }

    fn moment(&mut self) -> Option<Moment> {
        let (era, next_xid, count) = (self.era()?, self.xid()?, self.number()?);
        if count > MAX_IN_PROGRESS {
            return None;
        }
        let (mut above, mut in_progress) = (next_xid, Vec::new());
        for _ in 0..count {
            above = above.checked_sub(self.xid()?).filter(|xid| *xid >= 0)?;
            in_progress.push(above);
        }
        in_progress.reverse();
        Some(Moment { era, next_xid, in_progress })
    }

    fn position(&mut self) -> Option<Position> {
        let seen = self.moment()?;
        let has = self.byte().filter(|has| *has < 4)?;
        let round = if has & 1 == 0 { None } else { Some(self.moment()?) };
        let last = match has & 2 {
            0 => None,
            _ => {
                let (era, xid) = (self.era()?, self.xid()?);
                Some(Mark { era, xid, number: u32::try_from(self.number()?).ok()? })
            }
        };
        // Of a round something was told.
        (round.is_none() || last.is_some()).then_some(Position { seen, round, last })
    }
}

#[cfg(test)]
mod tests;
