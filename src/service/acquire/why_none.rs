//! The explanation of an acquisition that found no account: how many accounts there are of each cause.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Mutex, Semaphore},
    time::{Instant, timeout},
};

use super::wait_queue::{Criteria, Waiter};
use crate::{
    domain::id::PoolId,
    service::Error,
    store::{
        Store, StoreError,
        acquire::{Counts, Selector},
    },
};

/// How long an explanation is good for others who ask the same, at the least.
const FRESH: Duration = Duration::from_millis(250);
/// It reads the whole pool: it is good for as many times as long as it took.
const FRESH_TIMES: u32 = 10;
/// The most criteria with remembered counts.
const KEPT: usize = 1024;

/// How long somebody whose time is over waits while accounts are counted for others who asked something
/// else. Then the last counts for the same selector are told, for any amount.
const PATIENCE: Duration = Duration::from_secs(1);
/// The same for criteria that may make the dispatcher's statements slow: others of the kind wait with them.
const PATIENCE_WITH_CRITERIA: Duration = Duration::from_secs(30);

/// The last counts, and until when they are good.
#[derive(Debug)]
pub(super) struct RecentCounts {
    found: std::sync::Mutex<HashMap<Criteria, (Instant, Counts)>>,
    /// Held while accounts are counted. One such statement at a time reads the pool, and one more for criteria
    /// that may be slow. So nobody else waits behind those.
    counting: [Mutex<()>; 2],
    /// As many statements as may read much at once, of all pools.
    reads: Arc<Semaphore>,
}

/// See [`Lately`].
pub(super) type SharedCounts = Arc<RecentCounts>;

impl RecentCounts {
    /// Nothing found yet.
    pub(super) fn new(reads: Arc<Semaphore>) -> Self {
        Self { found: std::sync::Mutex::default(), counting: Default::default(), reads }
    }

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

/// What a selector names that is not there, or why waiting is no use.
pub(super) async fn missing(
    store: &Store,
    pool_id: &PoolId,
    selector: &Selector,
) -> Result<Option<Error>, StoreError> {
    let check = store.check_selector(pool_id, selector).await?;
    Ok(if !check.pool_exists {
        Some(Error::PoolNotFound(pool_id.clone()))
    } else if let (false, Some(plan_id)) = (check.plan_exists, &selector.plan_id) {
        Some(Error::PlanNotFound(pool_id.clone(), plan_id.clone()))
    } else if let (false, Some(account_id)) = (check.account_exists, &selector.account_id) {
        Some(Error::AccountNotFound(pool_id.clone(), account_id.clone()))
    } else if check.pool_paused {
        Some(Error::PoolPaused(pool_id.clone()))
    } else if check.pool_draining {
        Some(Error::PoolDraining(pool_id.clone()))
    } else {
        None
    })
}

/// Counts, once for all who ask at about the same time, why there is no account, and tells them.
pub(super) async fn explain(
    store: Store,
    pool_id: PoolId,
    criteria: Criteria,
    recent: SharedCounts,
    may_be_slow: bool,
    timed_out: Vec<TimedOut>,
) {
    let counts = count(&store, &pool_id, &criteria, &recent, may_be_slow).await;
    for TimedOut { waiter, position, waiting } in timed_out {
        let waited = waiter.until - waiter.since;
        let _ = waiter.reply.send(Err(match &counts {
            Ok(counts) => Error::NoAccountAvailable {
                pool_id: pool_id.clone(),
                waited,
                position,
                waiting,
                counts: counts.clone(),
            },
            Err(error) => error.clone(),
        }));
    }
}

async fn count(
    store: &Store,
    pool_id: &PoolId,
    criteria: &Criteria,
    recent: &SharedCounts,
    may_be_slow: bool,
) -> Result<Counts, Error> {
    // Others who ask the same wait for the same answer.
    let patience = if may_be_slow { PATIENCE_WITH_CRITERIA } else { PATIENCE };
    let counting = timeout(patience, async {
        let counting = recent.counting[usize::from(may_be_slow)].lock().await;
        let read = if may_be_slow { recent.reads.acquire().await.ok() } else { None };
        (counting, read)
    });
    let counting = counting.await;
    if let Some(counts) = recent.fresh(criteria) {
        return Ok(counts);
    }
    let Ok(_counting) = counting else {
        return Ok(recent.like(criteria).unwrap_or_default());
    };
    if let Some(error) = missing(store, pool_id, &criteria.selector).await? {
        return Err(error);
    }
    let began = Instant::now();
    let (counts, _) = store
        .explain_acquire(pool_id, &criteria.selector, criteria.expected_minor, 0, None)
        .await?;
    let until = Instant::now() + FRESH.max(began.elapsed() * FRESH_TIMES);
    recent.keep(criteria, until, &counts);
    Ok(counts)
}
