//! `AwaitRedemption`: callers wait for outcomes. One task a pool reads all redemptions that anybody waits for, so
//! that thousands of callers cost the database one statement a poll.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Error;
use crate::{
    admission::Caller,
    domain::{
        id::{PoolId, RedemptionId},
        redemption::Redemption,
    },
    store::{Store, StoreError},
};

/// How often redemptions are read whose outcome is waited for.
const POLL: Duration = Duration::from_millis(200);
/// How many redemptions one statement reads.
const MAX_ROWS: usize = 1000;

/// The waiting for outcomes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Awaiting(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    /// A pool is there while its task runs.
    awaited: Mutex<HashMap<PoolId, Awaited>>,
    closing: CancellationToken,
}

/// The redemptions of a pool that are waited for, each with its outcome once it is read.
type Awaited = HashMap<RedemptionId, watch::Sender<Option<Arc<Redemption>>>>;

impl Awaiting {
    /// Reads from `store`. When `closing` is cancelled, those who wait are told so.
    pub fn new(store: Store, closing: CancellationToken) -> Self {
        Self(Arc::new(Inner { store, awaited: Mutex::default(), closing }))
    }

    /// Waits for the outcome of a redemption, at most `longest`. Answers with the redemption as it is then.
    pub async fn outcome(
        &self,
        redemption: Redemption,
        longest: Duration,
        caller: &Caller,
    ) -> Result<Redemption, Error> {
        if !redemption.state.is_open() || longest.is_zero() {
            return Ok(redemption);
        }
        // What is waited for is not this server: others may work meanwhile.
        caller.step_aside();
        let Redemption { pool_id, redemption_id, .. } = &redemption;
        let mut outcome = self.subscribe(pool_id, *redemption_id);
        let read = timeout(longest, outcome.wait_for(Option::is_some));
        let told = match self.0.closing.run_until_cancelled(read).await {
            None => return Err(Error::ShuttingDown),
            Some(Ok(Ok(told))) => told.as_deref().cloned(),
            // The task that reads ends first.
            Some(Ok(Err(_))) if self.0.closing.is_cancelled() => return Err(Error::ShuttingDown),
            // Its time is over.
            Some(Ok(Err(_)) | Err(_)) => None,
        };
        if let Some(redemption) = told {
            return Ok(redemption);
        }
        let found = self.0.store.get_redemption(pool_id, *redemption_id).await?;
        found.ok_or_else(|| Error::RedemptionNotFound(pool_id.clone(), redemption_id.to_string()))
    }

    fn subscribe(
        &self,
        pool_id: &PoolId,
        id: RedemptionId,
    ) -> watch::Receiver<Option<Arc<Redemption>>> {
        let mut awaited = self.0.awaited();
        if !awaited.contains_key(pool_id) {
            tokio::spawn(Arc::clone(&self.0).poll(pool_id.clone()));
        }
        let of_pool = awaited.entry(pool_id.clone()).or_default();
        of_pool.entry(id).or_insert_with(|| watch::channel(None).0).subscribe()
    }
}

impl Inner {
    fn awaited(&self) -> MutexGuard<'_, HashMap<PoolId, Awaited>> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what is waited for in a pool, until nobody waits.
    async fn poll(self: Arc<Self>, pool_id: PoolId) {
        while self.closing.run_until_cancelled(sleep(POLL)).await.is_some() {
            let Some(ids) = self.still_awaited(&pool_id) else { return };
            for ids in ids.chunks(MAX_ROWS) {
                if let Err(error) = self.read(&pool_id, ids).await {
                    tracing::debug!(%pool_id, %error, "redemptions that are waited for were not read");
                }
            }
        }
        self.awaited().remove(&pool_id);
    }

    /// The redemptions of a pool that somebody waits for. `None`: nobody waits, and the task of the pool is to end.
    fn still_awaited(&self, pool_id: &PoolId) -> Option<Vec<Uuid>> {
        let mut awaited = self.awaited();
        let of_pool = awaited.get_mut(pool_id)?;
        of_pool.retain(|_, outcome| !outcome.is_closed());
        if of_pool.is_empty() {
            awaited.remove(pool_id);
            return None;
        }
        Some(of_pool.keys().map(|id| id.0).collect())
    }

    async fn read(&self, pool_id: &PoolId, ids: &[Uuid]) -> Result<(), StoreError> {
        let read = self.store.get_outcomes(pool_id, ids).await?;
        let mut awaited = self.awaited();
        let Some(of_pool) = awaited.get_mut(pool_id) else { return Ok(()) };
        for redemption in read {
            if let Some(outcome) = of_pool.remove(&redemption.redemption_id) {
                outcome.send_replace(Some(Arc::new(redemption)));
            }
        }
        Ok(())
    }
}
