//! The order of choice: free accounts, for each plan the ones that are to be chosen first in front.
//!
//! Accounts that are alike for every card stand together. So those that a card does not fit are skipped at once,
//! however many they are.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, btree_map, btree_set},
};

use time::OffsetDateTime;

use crate::domain::{
    account::{Account, AccountStatus},
    choice::Criteria,
    id::{AccountId, PlanId},
    plan::{Progress, Terms},
    pool::PoolTerms,
};

/// What a card's fit depends on, in the order of choice: `PROCESSING` first, then the fullest of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    is_waiting: bool,
    /// Accounts without a plan are not ordered by their balance.
    fullness: Reverse<i64>,
    balance_minor: i64,
    day: i32,
    day_credited_minor: i64,
}

/// Accounts of one kind: the one that was idle for the longest first.
type Alike = BTreeSet<(OffsetDateTime, AccountId)>;

/// Free accounts in the order of choice.
#[derive(Debug, Default)]
pub(super) struct Order {
    plans: HashMap<Option<PlanId>, BTreeMap<Kind, Alike>>,
}

impl Kind {
    fn of(account: &Account) -> Self {
        let has_plan = account.plan_id.is_some();
        Self {
            is_waiting: account.status == AccountStatus::Waiting,
            fullness: Reverse(if has_plan { account.balance_minor } else { 0 }),
            balance_minor: account.balance_minor,
            day: account.plan_day,
            day_credited_minor: account.day_credited_minor,
        }
    }

    fn progress(&self) -> Progress {
        Progress {
            balance_minor: self.balance_minor,
            day: self.day,
            day_credited_minor: self.day_credited_minor,
        }
    }
}

impl Order {
    pub(super) fn insert(&mut self, account: &Account) {
        let kinds = self.plans.entry(account.plan_id.clone()).or_default();
        let alike = kinds.entry(Kind::of(account)).or_default();
        alike.insert((account.idle_since, account.account_id.clone()));
    }

    pub(super) fn remove(&mut self, account: &Account) {
        let Some(kinds) = self.plans.get_mut(&account.plan_id) else { return };
        let kind = Kind::of(account);
        let Some(alike) = kinds.get_mut(&kind) else { return };
        alike.remove(&(account.idle_since, account.account_id.clone()));
        if alike.is_empty() {
            kinds.remove(&kind);
        }
        if kinds.is_empty() {
            self.plans.remove(&account.plan_id);
        }
    }

    /// The accounts whose plans take what is asked, the best first. Those of the plan that is asked for stand before
    /// those of none. Whether the selector allows them otherwise is not looked at.
    pub(super) fn fitting<'a>(
        &'a self,
        criteria: &'a Criteria,
        pool: &'a PoolTerms,
    ) -> impl Iterator<Item = &'a AccountId> {
        let of_plan = |plan_id: &'a Option<PlanId>, terms: Option<&'a Terms>| {
            let kinds = self.plans.get(plan_id)?;
            let is_bound = plan_id.is_some();
            Some(OfPlan { kinds: kinds.iter(), terms, is_bound, criteria })
        };
        let terms = |plan_id: &PlanId| pool.plans.get(plan_id);
        let (first, then): (Vec<_>, Option<_>) = match &criteria.selector.plan_id {
            // Nothing can be bound to a plan that is not there.
            Some(plan_id) if !pool.plans.contains_key(plan_id) => (Vec::new(), None),
            Some(plan_id) => {
                let key = self.plans.get_key_value(&Some(plan_id.clone())).map(|(key, _)| key);
                let first = key.and_then(|key| of_plan(key, terms(plan_id)));
                (first.into_iter().collect(), of_plan(&None, terms(plan_id)))
            }
            None => {
                let all = self.plans.keys();
                let all = all.filter_map(|key| of_plan(key, key.as_ref().and_then(terms)));
                (all.collect(), None)
            }
        };
        merged(first).chain(merged(then.into_iter().collect()))
    }
}

/// The kinds of one plan that take what is asked, in order.
struct OfPlan<'a> {
    kinds: btree_map::Iter<'a, Kind, Alike>,
    terms: Option<&'a Terms>,
    is_bound: bool,
    criteria: &'a Criteria,
}

/// Where accounts stand among those of all plans: `PROCESSING` first, then those whose plans want the least.
type Rank = (bool, i64);

impl<'a> Iterator for OfPlan<'a> {
    type Item = (Rank, &'a Alike);

    fn next(&mut self) -> Option<Self::Item> {
        let (terms, is_bound) = (self.terms, self.is_bound);
        let Criteria { selector, expected_minor } = self.criteria;
        let least_minor = selector.min_headroom_minor;
        self.kinds.by_ref().find_map(|(kind, alike)| {
            let progress = kind.progress();
            let misfit =
                terms.and_then(|terms| terms.misfit_for(&progress, *expected_minor, least_minor));
            let headroom = terms.filter(|_| is_bound).map(|terms| terms.headroom(&progress));
            misfit.is_none().then(|| ((kind.is_waiting, headroom.unwrap_or(i64::MAX)), alike))
        })
    }
}

/// The accounts of several plans in one order. What a plan has next is only read when it is its turn.
fn merged(mut plans: Vec<OfPlan<'_>>) -> impl Iterator<Item = &AccountId> {
    let mut open: Vec<btree_set::Iter<'_, (OffsetDateTime, AccountId)>> = Vec::new();
    let mut heap = BinaryHeap::new();
    for (number, plan) in plans.iter_mut().enumerate() {
        heap.extend(plan.next().map(|(rank, alike)| Reverse(Next::Kind(rank, number, alike))));
    }
    std::iter::from_fn(move || {
        loop {
            match heap.pop()?.0 {
                Next::Kind(rank, number, alike) => {
                    let mut accounts = alike.iter();
                    let first = accounts.next();
                    heap.extend(first.map(|at| Reverse(Next::Account(rank, at, open.len()))));
                    open.push(accounts);
                    let next = plans.get_mut(number).and_then(Iterator::next);
                    heap.extend(next.map(|(rank, all)| Reverse(Next::Kind(rank, number, all))));
                }
                Next::Account(rank, (_, account_id), number) => {
                    let next = open.get_mut(number).and_then(Iterator::next);
                    heap.extend(next.map(|at| Reverse(Next::Account(rank, at, number))));
                    return Some(account_id);
                }
            }
        }
    })
}

/// What is next of a plan. Of one rank all kinds are opened before the first account is taken.
enum Next<'a> {
    Kind(Rank, usize, &'a Alike),
    Account(Rank, &'a (OffsetDateTime, AccountId), usize),
}

impl Next<'_> {
    fn key(&self) -> (Rank, Option<&(OffsetDateTime, AccountId)>) {
        match self {
            Self::Kind(rank, ..) => (*rank, None),
            Self::Account(rank, at, _) => (*rank, Some(*at)),
        }
    }
}

impl Ord for Next<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialEq for Next<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Next<'_> {}

impl PartialOrd for Next<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
