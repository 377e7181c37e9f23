//! Where walks along the index of free accounts may begin.
//!
//! Whoever is acquired leaves a dead entry in that index, at the place where the next walk begins: walks
//! pass by all that was taken since the table was last vacuumed, and while anybody's old transaction is
//! open no vacuum takes them away. So whoever walks remembers how far earlier walks of the same wish came.
//! What stands before that place was taken; what is given back goes behind it, or is told to [`Walks`].
//! What others bring there (other servers' accounts that became fuller, accounts that are usable again) is
//! found by the next walk from the beginning, and there is one as often as it costs little of the time.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use time::OffsetDateTime;

use super::account::Account;
use crate::domain::{account::AccountStatus, id::PlanId};

/// Walks from the beginning take one part in so many of the time, at the most.
const SHARE_OF_BEGINNING: u32 = 100;
/// And those that look for what walks do not find, when too few were found for those who came before.
const SHARE_OF_SEARCH: u32 = 20;

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

/// An account that was given back, as far as walks are concerned.
#[derive(Clone, Debug)]
pub struct Freed {
    row: Row,
    place: Place,
}

impl Freed {
    /// A free account of a plan. One of none goes behind all others, and need not be told; nor one that is
    /// locked, which no walk meets.
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
        let row = Row { plan_key: plan_id?.to_string(), status, day };
        Some(Self { row, place: Place { first: -balance_minor, since } })
    }

    /// See [`Freed::new`]: an account as a release answered it.
    pub fn of(account: &Account) -> Option<Self> {
        let plan_id = account.plan_id.as_ref();
        let Account { status, plan_day, balance_minor, updated_at, .. } = account;
        Self::new(plan_id, *status, *plan_day, *balance_minor, *updated_at)
    }
}

/// How far walks of one wish came. See [the module](self).
#[derive(Debug)]
pub struct Walks {
    came_to: HashMap<Row, Place>,
    /// Somebody wants an account who is to be searched for whatever that takes.
    is_pressing: bool,
    begun: Spent,
    searched: Spent,
}

impl Default for Walks {
    fn default() -> Self {
        Self {
            came_to: HashMap::new(),
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

/// The places as the statement takes them, side by side.
#[derive(Debug, Default)]
pub(super) struct Columns {
    pub(super) plan_keys: Vec<String>,
    pub(super) statuses: Vec<String>,
    pub(super) days: Vec<i32>,
    pub(super) firsts: Vec<i64>,
    pub(super) sinces: Vec<OffsetDateTime>,
}

impl Walks {
    /// Where the next walk begins; at the beginning when it is time for that.
    pub(super) fn begin(&mut self) -> Columns {
        if self.begun.is_little(SHARE_OF_BEGINNING) {
            self.came_to.clear();
        }
        let mut columns = Columns::default();
        for (row, place) in &self.came_to {
            columns.plan_keys.push(row.plan_key.clone());
            columns.statuses.push(row.status.as_str().to_owned());
            columns.days.push(row.day);
            columns.firsts.push(place.first);
            columns.sinces.push(place.since);
        }
        columns
    }

    /// Notes that a walk from where [`Walks::begin`] said took so long.
    pub(super) fn walked(&mut self, took: Duration) {
        if self.came_to.is_empty() {
            self.begun.0 = Some((Instant::now(), took));
        }
    }

    /// Notes that a walk took an account.
    pub(super) fn took(
        &mut self,
        plan_key: String,
        status: AccountStatus,
        day: i32,
        (first, since): (i64, OffsetDateTime),
    ) {
        let place = Place { first, since };
        let came_to = self.came_to.entry(Row { plan_key, status, day }).or_insert(place);
        *came_to = place.max(*came_to);
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

    /// An account was given back: the next walk passes by it.
    pub fn note_freed(&mut self, freed: &Freed) {
        if let Some(place) = self.came_to.get_mut(&freed.row) {
            *place = freed.place.min(*place);
        }
    }

    /// There may be accounts anywhere: the next walk begins at the beginning.
    pub fn forget(&mut self) {
        self.came_to.clear();
    }
}
