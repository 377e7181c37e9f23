//! The explanation of an acquisition that found no account: how many accounts there are of each cause.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use super::wait_queue::Waiter;
use crate::{
    domain::{
        choice::{Counts, Criteria},
        id::PoolId,
        pool::PoolTerms,
        selector::Selector,
    },
    service::Error,
    store::ready_set::{Asked, Ready},
};

/// How long an explanation is good for others who ask the same, at the least.
const FRESH: Duration = Duration::from_millis(250);
/// It goes through the whole pool: it is good for as many times as long as it took.
const FRESH_TIMES: u32 = 10;
/// The most criteria with remembered counts.
const KEPT: usize = 1024;
/// How long somebody whose time is over waits while accounts are counted for others who asked something
/// else. Then the last counts for the same selector are told, for any amount.
const PATIENCE: Duration = Duration::from_secs(1);

/// The last counts, and until when they are good.
#[derive(Debug, Default)]
pub(super) struct RecentCounts {
    found: std::sync::Mutex<HashMap<Criteria, (Instant, Counts)>>,
    /// Held while accounts are counted, one time for all who ask.
    counting: Mutex<()>,
}

impl RecentCounts {
    /// The counts that are still good for these criteria.
    fn fresh(&self, criteria: &Criteria) -> Option<Counts> {
        let (until, counts) = self.found().get(criteria)?.clone();
        (until > Instant::now()).then_some(counts)
    }

    /// What was counted last for the same selector.
    fn like(&self, criteria: &Criteria) -> Option<Counts> {
        let found = self.found();
        let same = found.iter().filter(|(other, _)| other.selector == criteria.selector);
        same.max_by_key(|(_, (until, _))| *until).map(|(_, (_, counts))| counts.clone())
    }

    fn keep(&self, criteria: &Criteria, until: Instant, counts: &Counts) {
        let mut found = self.found();
        if found.len() >= KEPT {
            found.retain(|_, (until, _)| *until > Instant::now());
        }
        if found.len() < KEPT {
            found.insert(criteria.clone(), (until, counts.clone()));
        }
    }

    fn found(&self) -> std::sync::MutexGuard<'_, HashMap<Criteria, (Instant, Counts)>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A waiter whose time is over.
pub(super) struct TimedOut {
    pub(super) waiter: Waiter,
    /// The position in the queue, counted from 1.
    pub(super) position: usize,
    /// How many were in it.
    pub(super) waiting: usize,
}

/// What a selector names that is not there, or why waiting is no use, as far as is known.
pub(super) fn missing(ready: &Ready, terms: &PoolTerms, selector: &Selector) -> Option<Error> {
    let pool_id = ready.pool_id();
    if let Some(error) = missing_plan(pool_id, terms, selector) {
        return Some(error);
    }
    if let Some(id) = selector.account_id.as_ref().filter(|id| !ready.has_account(id)) {
        return Some(Error::AccountNotFound(pool_id.clone(), id.clone()));
    }
    match terms {
        _ if terms.paused => Some(Error::PoolPaused(pool_id.clone())),
        _ if terms.draining => Some(Error::PoolDraining(pool_id.clone())),
        _ => None,
    }
}

/// A plan that a selector names, and that is not there.
pub(super) fn missing_plan(
    pool_id: &PoolId,
    terms: &PoolTerms,
    selector: &Selector,
) -> Option<Error> {
    let plan_id = selector.plan_id.as_ref().filter(|id| !terms.plans.contains_key(*id))?;
    Some(Error::PlanNotFound(pool_id.clone(), plan_id.clone()))
}

/// Counts, once for all who ask at about the same time, why there is no account, and tells them.
pub(super) async fn explain(
    ready: &Ready,
    terms: Arc<PoolTerms>,
    criteria: &Criteria,
    recent: &RecentCounts,
    timed_out: Vec<TimedOut>,
) {
    let counts = count(ready, terms, criteria, recent).await;
    for TimedOut { waiter, position, waiting } in timed_out {
        let waited = waiter.until - waiter.since;
        let _ = waiter.reply.send(Err(Error::NoAccountAvailable {
            pool_id: ready.pool_id().clone(),
            waited,
            position,
            waiting,
            counts: counts.clone(),
        }));
    }
}

async fn count(
    ready: &Ready,
    terms: Arc<PoolTerms>,
    criteria: &Criteria,
    recent: &RecentCounts,
) -> Counts {
    // Others who ask the same wait for the same answer.
    let counting = timeout(PATIENCE, recent.counting.lock()).await;
    if let Some(counts) = recent.fresh(criteria) {
        return counts;
    }
    let Ok(_counting) = counting else { return recent.like(criteria).unwrap_or_default() };
    let began = Instant::now();
    let asked = Asked { criteria: criteria.clone(), limit: 0 };
    let (counts, _) = ready.explain(asked, terms, ()).await.unwrap_or_default();
    recent.keep(criteria, Instant::now() + FRESH.max(began.elapsed() * FRESH_TIMES), &counts);
    counts
}
