//! Why nothing was to be had.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{sync::Mutex, time::Instant};

use super::turns::{Waiter, Wish};
use crate::{
    domain::id::PoolId,
    service::Error,
    store::{
        Store, StoreError,
        acquire::{Counts, Selector},
    },
};

/// How long an account of why nothing was to be had is good for others who ask the same, at the least.
const FRESH: Duration = Duration::from_millis(250);
/// It reads the whole pool: it is good for as many times as long as it took.
const FRESH_TIMES: u32 = 10;

/// What was found lately, and until when it is good.
pub(super) type Known = Arc<Mutex<HashMap<Wish, (Instant, Counts)>>>;

/// Somebody whose time is over.
pub(super) struct GaveUp {
    pub(super) waiter: Waiter,
    /// The place in the queue, counted from 1.
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

/// Counts, once for all who ask at about the same time, why nothing was to be had, and tells them.
pub(super) async fn explain(
    store: Store,
    pool_id: PoolId,
    wish: Wish,
    known: Known,
    gave_up: Vec<GaveUp>,
) {
    let counts = count(&store, &pool_id, &wish, &known).await;
    for GaveUp { waiter, position, waiting } in gave_up {
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
    wish: &Wish,
    known: &Known,
) -> Result<Counts, Error> {
    // Held while the accounts are counted: others who ask the same wait for the same answer.
    let mut known = known.lock().await;
    known.retain(|_, (until, _)| *until > Instant::now());
    if let Some((_, counts)) = known.get(wish) {
        return Ok(counts.clone());
    }
    if let Some(error) = missing(store, pool_id, &wish.selector).await? {
        return Err(error);
    }
    let began = Instant::now();
    let (counts, _) =
        store.explain_acquire(pool_id, &wish.selector, wish.expected_minor, 0).await?;
    let until = Instant::now() + FRESH.max(began.elapsed() * FRESH_TIMES);
    known.insert(wish.clone(), (until, counts.clone()));
    Ok(counts)
}
