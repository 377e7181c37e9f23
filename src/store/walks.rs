//! Where walks along the index of free accounts may begin.
//!
//! Whoever is acquired leaves a dead entry in that index, at the place where the next walk begins: walks
//! pass by all that was taken since the table was last vacuumed, and while anybody's old transaction is
//! open no vacuum takes them away. So whoever walks remembers how far earlier walks of the same wish came.
//! What stands before that place was taken; what is given back goes behind it, or is told to [`Walks`], and
//! then looked for where it stands. What others bring there (other servers' accounts that became fuller,
//! accounts that are usable again) is found by the next walk from the beginning, and there is one as often as
//! it costs little of the time.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

use time::OffsetDateTime;

use super::account::Account;
use crate::domain::{account::AccountStatus, id::PlanId};

/// Walks from the beginning take one part in so many of the time, at the most.
const SHARE_OF_BEGINNING: u32 = 100;
/// And those that look for what walks do not find, when too few were found for those who came before.
const SHARE_OF_SEARCH: u32 = 20;
/// Places before the one that walks came to, of accounts that came back, that are looked at one by one: each
/// takes some three microseconds. When there are more, walks go on from the first of them.
const MAX_BACK: usize = 32;
/// Of how many rows it is remembered for longer than until the next walk from the beginning: each walk looks
/// each row up among them.
const MAX_ROWS: usize = 32;

/// Accounts that stand together in the index.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Row {
    /// The plan; empty: none.
    plan_key: String,
    status: AccountStatus,
    day: i32,
}

/// A place in their order: fullest first, then longest unused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// Minus the balance in the plan, in minor units.
    first: i64,
    since: OffsetDateTime,
}

/// Where a free account stands, or stood when it was taken, as far as walks are concerned.
#[derive(Clone, Debug)]
pub struct Freed {
    row: Row,
    place: Place,
}

impl Freed {
    /// A free account of a plan that was used until now. One of none goes behind all others, and need not
    /// be told; nor one that is locked, which no walk meets.
    pub fn new(
        plan_id: Option<&PlanId>,
        status: AccountStatus,
        day: i32,
        balance_minor: i64,
        since: OffsetDateTime,
    ) -> Option<Self> {
        if status == AccountStatus::Locking {
            return None;
        }
        Some(Self::standing(plan_id?.as_str(), status, day, balance_minor, since))
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
        Self { row, place: Place { first, since } }
    }

    /// See [`Freed::new`]: an account as a release answered it.
    pub fn of(account: &Account) -> Option<Self> {
        let plan_id = account.plan_id.as_ref();
        let Account { status, plan_day, balance_minor, updated_at, .. } = account;
        Self::new(plan_id, *status, *plan_day, *balance_minor, *updated_at)
    }
}

/// How far walks came along a row.
#[derive(Debug)]
struct CameTo {
    /// Whatever stands before was taken,
    place: Place,
    /// but for what came back to these places.
    back: BTreeSet<Place>,
}

impl CameTo {
    fn new(place: Place) -> Self {
        Self { place, back: BTreeSet::new() }
    }

    /// An account came back.
    fn note_back(&mut self, place: Place) {
        if place >= self.place {
            return;
        }
        self.back.insert(place);
        if self.back.len() > MAX_BACK {
            self.place = self.back.first().map_or(place, |first| *first);
            self.back.clear();
        }
    }

    /// A walk took accounts, the last of them here: what it left before does not fit, or is gone. There may be
    /// others at the same place.
    fn note_taken(&mut self, last: Place) {
        self.back.retain(|place| *place >= last);
        self.place = self.place.max(last);
    }

    /// The parts that are to be walked, each with its end.
    fn parts(&self) -> impl Iterator<Item = (Place, Option<Place>)> {
        let back = self.back.iter().map(|place| (*place, Some(*place)));
        back.chain([(self.place, None)])
    }
}

/// How far walks of one wish came. See [the module](self).
#[derive(Debug)]
pub struct Walks {
    came_to: HashMap<Row, CameTo>,
    /// The walk that was begun last is one from the beginning.
    is_whole: bool,
    /// Somebody wants an account who is to be searched for whatever that takes.
    is_pressing: bool,
    begun: Spent,
    searched: Spent,
}

impl Default for Walks {
    fn default() -> Self {
        Self {
            came_to: HashMap::new(),
            is_whole: true,
            is_pressing: true,
            begun: Spent::default(),
            searched: Spent::default(),
        }
    }
}

/// When something was last done, and how long it took.
#[derive(Debug, Default)]
struct Spent(Option<(Instant, Duration)>);

impl Spent {
    /// Whether doing it again now takes at most one part in `share` of the time.
    fn is_little(&self, share: u32) -> bool {
        self.0.is_none_or(|(at, took)| at.elapsed() >= took * share)
    }
}

/// The parts to walk as the statement takes them, side by side.
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

impl Walks {
    /// What the next walk is to see; everything when it is time for that.
    pub(super) fn begin(&mut self) -> Columns {
        self.is_whole = self.came_to.is_empty() || self.begun.is_little(SHARE_OF_BEGINNING);
        let mut columns = Columns::default();
        if self.is_whole {
            return columns;
        }
        for (row, came_to) in &self.came_to {
            for (from, to) in came_to.parts() {
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

    /// Notes that a walk of what [`Walks::begin`] said took so long, and which accounts it took. Where it
    /// took none, it is as before: what is there is not better than what was taken, and the next walk from
    /// the beginning sees it again.
    pub(super) fn walked(&mut self, lasting: Duration, taken: impl IntoIterator<Item = Freed>) {
        if self.is_whole {
            self.begun.0 = Some((Instant::now(), lasting));
        }
        let mut reached: HashMap<Row, Place> = HashMap::new();
        for Freed { row, place } in taken {
            let furthest = reached.entry(row).or_insert(place);
            *furthest = place.max(*furthest);
        }
        if self.is_whole && self.came_to.len() > MAX_ROWS {
            self.came_to.clear();
        }
        for (row, last) in reached {
            match self.came_to.get_mut(&row) {
                Some(came_to) if !self.is_whole => came_to.note_taken(last),
                _ => {
                    self.came_to.insert(row, CameTo::new(last));
                }
            }
        }
    }

    /// Says whether anybody is new among those who want an account next, or will be told that there is none.
    /// Who is new may have a lease already, and either may want what walks do not find.
    pub fn note_pressing(&mut self, is_pressing: bool) {
        self.is_pressing = is_pressing;
    }

    /// Whether what walks do not find may be looked for.
    pub(super) fn may_search(&self) -> bool {
        self.is_pressing || self.searched.is_little(SHARE_OF_SEARCH)
    }

    /// Notes that it was looked for, and took so long.
    pub(super) fn searched(&mut self, took: Duration) {
        self.searched.0 = Some((Instant::now(), took));
    }

    /// An account came back: the next walk looks at it.
    pub fn note_freed(&mut self, freed: &Freed) {
        if let Some(came_to) = self.came_to.get_mut(&freed.row) {
            came_to.note_back(freed.place);
        }
    }

    /// There may be accounts anywhere: the next walk begins at the beginning.
    pub fn forget(&mut self) {
        self.came_to.clear();
    }
}
