//! Scan cursors: where scans of the index of free accounts start.
//!
//! An account that is acquired leaves a dead entry in that index, where the next scan would start. A scan reads all
//! dead entries since the last vacuum, and a long-running transaction keeps vacuum from removing them. So scans
//! with the same criteria start where earlier ones ended: at their cursor. The accounts before a cursor were taken.
//! An account that is given back goes behind the cursor, or [`ScanCursors`] is told its position and the next scan
//! reads it there. A full scan finds what other servers return before a cursor, and accounts that are usable again.
//! Full scans run as often as they cost little of the time.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use time::OffsetDateTime;

use super::{
    account::{Account, Labels},
    acquire::Selector,
};
use crate::domain::{
    account::AccountStatus,
    id::{AccountId, PlanId},
};

/// Full scans take at most one part in so many of the time. So few callers meet one that the slowest hundredth
/// of calls does not show it.
const SHARE_OF_BEGINNING: u32 = 400;
/// The same for searches for what scans do not find, while those who wait were all searched for before.
const SHARE_OF_SEARCH: u32 = 20;
/// After this time there is one in any case: one that was held up predicts little of the next.
const LONGEST: Duration = Duration::from_secs(10 * 60);
/// Positions before a cursor that accounts returned to. A scan reads them one by one, in some three
/// microseconds each, until it has enough.
const MAX_BACK: usize = 1000;
/// Look-ups of one scan, in which each row finds its parts among those of all rows: about a millisecond. Above it
/// the cursors are rewound to the returned positions. When that is not enough, the next full scan forgets all.
const MAX_LOOKUPS: usize = 20_000;

/// Accounts that stand together in the index.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Row {
    /// The plan; empty: none.
    plan_key: String,
    status: AccountStatus,
    day: i32,
}

/// A position in their order: fullest first, then longest unused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Position {
    /// Minus the balance in the plan, in minor units.
    first: i64,
    since: OffsetDateTime,
}

/// The position of a free account in the index, or the one that it had when it was taken.
#[derive(Clone, Debug)]
pub struct Freed {
    row: Row,
    position: Position,
    /// Which account it is, where that is known.
    named: Option<Arc<Named>>,
}

/// An account that came free, as far as selectors are concerned.
#[derive(Debug)]
struct Named {
    account_id: AccountId,
    country: Option<String>,
    labels: Labels,
}

impl Freed {
    /// An account that was used until now, if a scan can find it: not while it is locked, or deferred until it
    /// is available.
    pub fn new(
        plan_id: Option<&PlanId>,
        status: AccountStatus,
        day: i32,
        balance_minor: i64,
        since: OffsetDateTime,
        available_at: Option<OffsetDateTime>,
    ) -> Option<Self> {
        if status == AccountStatus::Locking || available_at.is_some_and(|at| at > since) {
            return None;
        }
        let plan_key = plan_id.map_or("", PlanId::as_str);
        Some(Self::standing(plan_key, status, day, balance_minor, since))
    }

    /// A free account of a plan, or of none (an empty key), that may have been unused for long.
    pub(super) fn standing(
        plan_key: &str,
        status: AccountStatus,
        day: i32,
        balance_minor: i64,
        since: OffsetDateTime,
    ) -> Self {
        let first = if plan_key.is_empty() { 0 } else { -balance_minor };
        let row = Row { plan_key: plan_key.to_owned(), status, day };
        Self { row, position: Position { first, since }, named: None }
    }

    /// The account, where a selector may allow it: as far as the program remembers it.
    pub fn account_for(&self, selector: &Selector) -> Option<&AccountId> {
        let named = self.named.as_ref()?;
        let is_of_plan = selector.plan_id.as_ref().is_none_or(|plan_id| {
            self.row.plan_key.is_empty() || self.row.plan_key == plan_id.as_str()
        });
        let carries = |(key, value): (&String, &String)| named.labels.get(key) == Some(value);
        let is_of = |wanted: &Option<String>| wanted.is_none() || *wanted == named.country;
        let has_marks = selector.labels.iter().all(carries)
            && is_of(&selector.country_code)
            && (named.country.is_none() || is_of(&selector.card_country));
        let is_wanted = !selector.exclude.contains(&named.account_id);
        (is_of_plan && has_marks && is_wanted).then_some(&named.account_id)
    }

    /// See [`Freed::new`]: an account as a release answered it.
    pub fn of(account: &Account) -> Option<Self> {
        let plan_id = account.plan_id.as_ref();
        let Account { status, plan_day, balance_minor, updated_at, .. } = account;
        let available_at = account.available_at();
        let freed =
            Self::new(plan_id, *status, *plan_day, *balance_minor, *updated_at, available_at)?;
        let named = Named {
            account_id: account.account_id.clone(),
            country: account.country_code.clone(),
            labels: account.labels.clone(),
        };
        Some(Self { named: Some(Arc::new(named)), ..freed })
    }
}

/// The cursor of a row.
#[derive(Debug)]
struct Cursor {
    /// All accounts before it were taken,
    position: Position,
    /// except those that returned to these positions.
    back: BTreeSet<Position>,
}

impl Cursor {
    fn new(position: Position) -> Self {
        Self { position, back: BTreeSet::new() }
    }

    /// An account came back.
    fn note_back(&mut self, position: Position) {
        if position >= self.position {
            return;
        }
        self.back.insert(position);
        if self.back.len() > MAX_BACK {
            self.rewind();
        }
    }

    /// Moves the cursor back to the first of the returned positions. The next scan reads the dead entries between.
    fn rewind(&mut self) {
        self.position = self.back.first().map_or(self.position, |first| *first);
        self.back.clear();
    }

    /// A scan took accounts, the last of them here: what it left before does not fit, or is gone. There may be
    /// others at the same position.
    fn note_taken(&mut self, last: Position) {
        self.back.retain(|position| *position >= last);
        self.position = self.position.max(last);
    }

    /// The parts to scan, each with its end.
    fn parts(&self) -> impl Iterator<Item = (Position, Option<Position>)> {
        let back = self.back.iter().map(|position| (*position, Some(*position)));
        back.chain([(self.position, None)])
    }
}

/// The cursors of scans with the same criteria. See [the module](self).
#[derive(Debug)]
pub struct ScanCursors {
    cursors: HashMap<Row, Cursor>,
    /// The scan that was begun last is a full one.
    is_whole: bool,
    /// Somebody waits for whom a search is run whatever it costs.
    is_pressing: bool,
    begun: Timing,
    searched: Timing,
}

impl Default for ScanCursors {
    fn default() -> Self {
        Self {
            cursors: HashMap::new(),
            is_whole: true,
            is_pressing: true,
            begun: Timing::default(),
            searched: Timing::default(),
        }
    }
}

/// When something was last done, and how long it took.
#[derive(Debug, Default)]
struct Timing(Option<(Instant, Duration)>);

impl Timing {
    /// Whether doing it again now takes at most one part in `share` of the time, or was long ago.
    fn is_little(&self, share: u32) -> bool {
        self.0.is_none_or(|(at, took)| at.elapsed() >= (took * share).min(LONGEST))
    }
}

/// The parts to scan, as the columns that the statement takes.
#[derive(Debug, Default)]
pub(super) struct Columns {
    pub(super) plan_keys: Vec<String>,
    pub(super) statuses: Vec<String>,
    pub(super) days: Vec<i32>,
    pub(super) firsts: Vec<i64>,
    pub(super) sinces: Vec<OffsetDateTime>,
    pub(super) lasts: Vec<Option<i64>>,
    pub(super) untils: Vec<Option<OffsetDateTime>>,
}

impl ScanCursors {
    /// The parts that the next scan reads; none of them for a full scan.
    pub(super) fn begin(&mut self) -> Columns {
        self.is_whole = self.cursors.is_empty() || self.begun.is_little(SHARE_OF_BEGINNING);
        let mut columns = Columns::default();
        if self.is_whole {
            return columns;
        }
        let parts: usize = self.cursors.values().map(|cursor| cursor.back.len() + 1).sum();
        if parts * self.cursors.len() > MAX_LOOKUPS {
            self.cursors.values_mut().for_each(Cursor::rewind);
        }
        for (row, cursor) in &self.cursors {
            for (from, to) in cursor.parts() {
                columns.plan_keys.push(row.plan_key.clone());
                columns.statuses.push(row.status.as_str().to_owned());
                columns.days.push(row.day);
                columns.firsts.push(from.first);
                columns.sinces.push(from.since);
                columns.lasts.push(to.map(|to| to.first));
                columns.untils.push(to.map(|to| to.since));
            }
        }
        columns
    }

    /// Notes how long a scan of the parts of [`ScanCursors::begin`] took, and which accounts it took. Where it
    /// took none of a row, the row's cursor stays: the next full scan reads it again.
    pub(super) fn note_scan(&mut self, lasting: Duration, taken: impl IntoIterator<Item = Freed>) {
        if self.is_whole {
            self.begun.0 = Some((Instant::now(), lasting));
        }
        let mut reached: HashMap<Row, Position> = HashMap::new();
        for Freed { row, position, .. } in taken {
            let furthest = reached.entry(row).or_insert(position);
            *furthest = position.max(*furthest);
        }
        if self.is_whole && self.cursors.len().pow(2) > MAX_LOOKUPS {
            self.cursors.clear();
        }
        for (row, last) in reached {
            match self.cursors.get_mut(&row) {
                Some(cursor) if !self.is_whole => cursor.note_taken(last),
                _ => {
                    self.cursors.insert(row, Cursor::new(last));
                }
            }
        }
    }

    /// Notes whether one of the next requests is new, or has its last try. A new one may have a lease already, and
    /// both may need what scans do not find.
    pub fn note_pressing(&mut self, is_pressing: bool) {
        self.is_pressing = is_pressing;
    }

    /// Whether a search may run for what scans do not find.
    pub(super) fn may_search(&self) -> bool {
        self.is_pressing || self.searched.is_little(SHARE_OF_SEARCH)
    }

    /// Notes how long the search took.
    pub(super) fn searched(&mut self, took: Duration) {
        self.searched.0 = Some((Instant::now(), took));
    }

    /// An account returned: the next scan reads it.
    pub fn note_freed(&mut self, freed: &Freed) {
        if let Some(cursor) = self.cursors.get_mut(&freed.row) {
            cursor.note_back(freed.position);
        }
    }

    /// There may be accounts anywhere: the next scan is a full one.
    pub fn forget(&mut self) {
        self.cursors.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        Row { plan_key: "plan".to_owned(), status: AccountStatus::Processing, day: 1 }
    }

    fn position(first: i64) -> Position {
        Position { first, since: OffsetDateTime::UNIX_EPOCH }
    }

    fn at(first: i64) -> Freed {
        Freed { row: row(), position: position(first), named: None }
    }

    /// Where the parts of the next scan start; those of one position are in brackets.
    fn parts(cursors: &mut ScanCursors) -> String {
        let columns = cursors.begin();
        let parts = columns.firsts.iter().zip(&columns.lasts).map(|(first, last)| match last {
            Some(last) => {
                assert_eq!(last, first);
                format!("[{first}]")
            }
            None => first.to_string(),
        });
        parts.collect::<Vec<_>>().join(" ")
    }

    /// After a scan that took so long that no full scan is due.
    fn after_scan(taken: impl IntoIterator<Item = i64>) -> ScanCursors {
        let mut cursors = ScanCursors::default();
        assert_eq!(parts(&mut cursors), "");
        cursors.note_scan(LONGEST, taken.into_iter().map(at));
        cursors
    }

    #[test]
    fn scans_go_on_from_the_last_account_taken() {
        let mut cursors = after_scan([-5, -3, -4]);
        assert_eq!(parts(&mut cursors), "-3");
        cursors.note_scan(Duration::ZERO, [at(-2)]);
        assert_eq!(parts(&mut cursors), "-2");
        cursors.note_scan(Duration::ZERO, []);
        assert_eq!(parts(&mut cursors), "-2");
    }

    #[test]
    fn returned_accounts_are_scanned_first_in_their_order() {
        let mut cursors = after_scan([-3]);
        for first in [-4, -9, -1, -3, -6] {
            cursors.note_freed(&at(first));
        }
        assert_eq!(parts(&mut cursors), "[-9] [-6] [-4] -3");
        // There may be another at -6; at -9 there is none that fits.
        cursors.note_scan(Duration::ZERO, [at(-6)]);
        assert_eq!(parts(&mut cursors), "[-6] [-4] -3");
        cursors.note_scan(Duration::ZERO, [at(-2)]);
        assert_eq!(parts(&mut cursors), "-2");
    }

    #[test]
    fn too_many_returned_positions_rewind_the_cursor() {
        let mut cursors = after_scan([0]);
        let most = i64::try_from(MAX_BACK).unwrap();
        (1..=most).for_each(|n| cursors.note_freed(&at(-n)));
        assert_eq!(parts(&mut cursors).matches('[').count(), MAX_BACK);
        cursors.note_freed(&at(-most - 1));
        assert_eq!(parts(&mut cursors), format!("{}", -most - 1));
    }

    #[test]
    fn too_many_parts_rewind_all_cursors() {
        const DAYS: usize = 100;
        let on = |day, first| Freed { row: Row { day, ..row() }, ..at(first) };
        let mut cursors = ScanCursors::default();
        let _ = cursors.begin();
        cursors.note_scan(LONGEST, (1..).take(DAYS).map(|day| on(day, 0)));
        assert_eq!(cursors.begin().days.len(), DAYS);
        (1..=7).for_each(|first| cursors.note_freed(&on(3, -first)));
        assert_eq!(cursors.begin().days.len(), DAYS + 7);
        (8..=101).for_each(|first| cursors.note_freed(&on(3, -first)));
        let parts = cursors.begin();
        assert_eq!(parts.days.len(), DAYS);
        assert_eq!(parts.firsts.iter().filter(|first| **first == -101).count(), 1);
    }

    #[test]
    fn a_full_scan_keeps_the_cursors_of_rows_it_took_nothing_from() {
        let other = || Freed { row: Row { day: 2, ..row() }, ..at(-8) };
        let mut cursors = after_scan([-3]);
        cursors.note_scan(Duration::ZERO, [other()]);
        cursors.begun = Timing::default();
        assert_eq!(parts(&mut cursors), "");
        cursors.note_scan(LONGEST, [at(-5)]);
        let columns = cursors.begin();
        let mut remembered: Vec<_> = columns.days.iter().zip(&columns.firsts).collect();
        remembered.sort();
        assert_eq!(remembered, [(&1, &-5), (&2, &-8)]);
        cursors.forget();
        assert_eq!(parts(&mut cursors), "");
    }

    #[test]
    fn accounts_that_no_scan_can_find_are_not_noted() {
        let now = OffsetDateTime::UNIX_EPOCH;
        let freed = |status, available_at| Freed::new(None, status, 1, 5, now, available_at);
        assert!(freed(AccountStatus::Locking, None).is_none());
        assert!(freed(AccountStatus::Waiting, Some(now + Duration::from_secs(1))).is_none());
        let free = freed(AccountStatus::Waiting, Some(now)).unwrap();
        assert_eq!(free.position, position(0), "an account without a plan has no fullness");
    }
}
