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

/// Walks from the beginning take one part in so many of the time, at the most: fewer callers meet one than would
/// be seen among the slowest hundredth.
const SHARE_OF_BEGINNING: u32 = 400;
/// And those that look for what walks do not find, when too few were found for those who came before.
const SHARE_OF_SEARCH: u32 = 20;
/// But after so long there is one, whatever it takes: one that was held up says little of the next.
const LONGEST: Duration = Duration::from_secs(10 * 60);
/// Places in a row, before the one that walks came to, that accounts came back to. A walk looks at one after
/// the other, for some three microseconds each, until it has enough.
const MAX_BACK: usize = 1000;
/// Each row looks its parts up among those of all: so often for one walk, which takes a millisecond. When it
/// would be more, the places are given up; and when that is not enough, the next walk from the beginning
/// forgets all.
const MAX_LOOKS: usize = 20_000;

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
    /// An account that was used until now, if a walk can meet it: not while it is locked, or rests until it
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
        Self { row, place: Place { first, since }, named: None }
    }

    /// The account, where a selector may allow it: as far as can be told from what is known of it.
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
            self.give_up_places();
        }
    }

    /// Walks go on from the first of the places instead, through what is dead between them.
    fn give_up_places(&mut self) {
        self.place = self.back.first().map_or(self.place, |first| *first);
        self.back.clear();
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
    /// Whether doing it again now takes at most one part in `share` of the time, or was long ago.
    fn is_little(&self, share: u32) -> bool {
        self.0.is_none_or(|(at, took)| at.elapsed() >= (took * share).min(LONGEST))
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
        let parts: usize = self.came_to.values().map(|came_to| came_to.back.len() + 1).sum();
        if parts * self.came_to.len() > MAX_LOOKS {
            self.came_to.values_mut().for_each(CameTo::give_up_places);
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
        for Freed { row, place, .. } in taken {
            let furthest = reached.entry(row).or_insert(place);
            *furthest = place.max(*furthest);
        }
        if self.is_whole && self.came_to.len().pow(2) > MAX_LOOKS {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        Row { plan_key: "plan".to_owned(), status: AccountStatus::Processing, day: 1 }
    }

    fn place(first: i64) -> Place {
        Place { first, since: OffsetDateTime::UNIX_EPOCH }
    }

    fn at(first: i64) -> Freed {
        Freed { row: row(), place: place(first), named: None }
    }

    /// Where the parts of the next walk begin; those of one place are in brackets.
    fn parts(walks: &mut Walks) -> String {
        let columns = walks.begin();
        let parts = columns.firsts.iter().zip(&columns.lasts).map(|(first, last)| match last {
            Some(last) => {
                assert_eq!(last, first);
                format!("[{first}]")
            }
            None => first.to_string(),
        });
        parts.collect::<Vec<_>>().join(" ")
    }

    /// After a walk that took so long that the next from the beginning is far away.
    fn walked(taken: impl IntoIterator<Item = i64>) -> Walks {
        let mut walks = Walks::default();
        assert_eq!(parts(&mut walks), "");
        walks.walked(LONGEST, taken.into_iter().map(at));
        walks
    }

    #[test]
    fn walks_go_on_from_the_last_that_was_taken() {
        let mut walks = walked([-5, -3, -4]);
        assert_eq!(parts(&mut walks), "-3");
        walks.walked(Duration::ZERO, [at(-2)]);
        assert_eq!(parts(&mut walks), "-2");
        walks.walked(Duration::ZERO, []);
        assert_eq!(parts(&mut walks), "-2");
    }

    #[test]
    fn what_came_back_is_looked_at_before_it_in_its_order() {
        let mut walks = walked([-3]);
        for first in [-4, -9, -1, -3, -6] {
            walks.note_freed(&at(first));
        }
        assert_eq!(parts(&mut walks), "[-9] [-6] [-4] -3");
        // There may be another at -6; at -9 there is none that fits.
        walks.walked(Duration::ZERO, [at(-6)]);
        assert_eq!(parts(&mut walks), "[-6] [-4] -3");
        walks.walked(Duration::ZERO, [at(-2)]);
        assert_eq!(parts(&mut walks), "-2");
    }

    #[test]
    fn too_many_places_are_given_up() {
        let mut walks = walked([0]);
        let most = i64::try_from(MAX_BACK).unwrap();
        (1..=most).for_each(|n| walks.note_freed(&at(-n)));
        assert_eq!(parts(&mut walks).matches('[').count(), MAX_BACK);
        walks.note_freed(&at(-most - 1));
        assert_eq!(parts(&mut walks), format!("{}", -most - 1));
    }

    #[test]
    fn too_many_parts_are_given_up() {
        const DAYS: usize = 100;
        let on = |day, first| Freed { row: Row { day, ..row() }, ..at(first) };
        let mut walks = Walks::default();
        let _ = walks.begin();
        walks.walked(LONGEST, (1..).take(DAYS).map(|day| on(day, 0)));
        assert_eq!(walks.begin().days.len(), DAYS);
        (1..=7).for_each(|first| walks.note_freed(&on(3, -first)));
        assert_eq!(walks.begin().days.len(), DAYS + 7);
        (8..=101).for_each(|first| walks.note_freed(&on(3, -first)));
        let parts = walks.begin();
        assert_eq!(parts.days.len(), DAYS);
        assert_eq!(parts.firsts.iter().filter(|first| **first == -101).count(), 1);
    }

    #[test]
    fn a_walk_from_the_beginning_leaves_what_it_did_not_take_as_it_was() {
        let other = || Freed { row: Row { day: 2, ..row() }, ..at(-8) };
        let mut walks = walked([-3]);
        walks.walked(Duration::ZERO, [other()]);
        walks.begun = Spent::default();
        assert_eq!(parts(&mut walks), "");
        walks.walked(LONGEST, [at(-5)]);
        let columns = walks.begin();
        let mut known: Vec<_> = columns.days.iter().zip(&columns.firsts).collect();
        known.sort();
        assert_eq!(known, [(&1, &-5), (&2, &-8)]);
        walks.forget();
        assert_eq!(parts(&mut walks), "");
    }

    #[test]
    fn what_no_walk_can_meet_is_not_told() {
        let now = OffsetDateTime::UNIX_EPOCH;
        let freed = |status, available_at| Freed::new(None, status, 1, 5, now, available_at);
        assert!(freed(AccountStatus::Locking, None).is_none());
        assert!(freed(AccountStatus::Waiting, Some(now + Duration::from_secs(1))).is_none());
        let free = freed(AccountStatus::Waiting, Some(now)).unwrap();
        assert_eq!(free.place, place(0), "an account without a plan has no fullness");
    }
}
