//! Statements that run beside the dispatcher's pass, at most one of a kind.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures_util::future::{Either, pending, select};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{JoinError, JoinHandle},
    time::{Instant, timeout},
};

use super::{slow::Kind, wait_queue::Criteria};
use crate::{
    domain::id::{PoolId, RequestId},
    store::{
        Store, StoreError,
        acquire::{Acquired, Selector, Wanted},
        scan::ScanCursors,
    },
};

/// A statement for some who wait with the same selector.
pub(super) struct Attempt {
    pub(super) store: Store,
    pub(super) pool_id: PoolId,
    pub(super) selector: Arc<Selector>,
    pub(super) wanted: Vec<Wanted>,
    pub(super) cursors: ScanCursors,
    /// The criteria that the cursors belong to.
    pub(super) scanned_for: Criteria,
}

/// The result of it.
pub(super) struct Attempted {
    pub(super) selector: Arc<Selector>,
    /// What each expects.
    pub(super) expected: HashMap<RequestId, Option<i64>>,
    pub(super) cursors: ScanCursors,
    pub(super) scanned_for: Criteria,
    pub(super) took: Duration,
    pub(super) found: Result<HashMap<RequestId, Acquired>, StoreError>,
}

impl Attempt {
    pub(super) async fn run(mut self) -> Attempted {
        let begun = Instant::now();
        let found = self
            .store
            .acquire(&self.pool_id, &self.selector, &self.wanted, &mut self.cursors)
            .await;
        let expected = self.wanted.into_iter().map(|w| (w.request_id, w.expected_minor)).collect();
        let (selector, cursors, scanned_for) = (self.selector, self.cursors, self.scanned_for);
        Attempted { selector, expected, cursors, scanned_for, took: begun.elapsed(), found }
    }

    pub(super) fn criteria(&self) -> HashSet<Criteria> {
        let criteria = |wanted: &Wanted| Criteria {
            selector: Arc::clone(&self.selector),
            expected_minor: wanted.expected_minor,
        };
        self.wanted.iter().map(criteria).collect()
    }
}

struct Running {
    all_criteria: HashSet<Criteria>,
    task: JoinHandle<Attempted>,
}

/// See [the module](self).
pub(super) struct SideStatements {
    running: [Option<Running>; Kind::ALL.len()],
    /// Shared by all pools: so many such statements run at once, and the other connections are left to other
    /// statements. First come, first served, so that no pool keeps another out.
    permits: Arc<Semaphore>,
}

impl SideStatements {
    pub(super) fn new(permits: Arc<Semaphore>) -> Self {
        Self { running: [None, None], permits }
    }

    pub(super) fn is_free(&self, kind: Kind) -> bool {
        self.running[kind as usize].is_none()
    }

    /// Whether a statement for these criteria is running.
    pub(super) fn is_for(&self, criteria: &Criteria) -> bool {
        self.running.iter().flatten().any(|running| running.all_criteria.contains(criteria))
    }

    /// Starts a statement, and waits for it for up to `patience`, if it can run now. After that it goes on beside
    /// the pass.
    pub(super) async fn start(
        &mut self,
        kind: Kind,
        attempt: Attempt,
        patience: Duration,
    ) -> Option<Result<Attempted, JoinError>> {
        let all_criteria = attempt.criteria();
        let permit = Arc::clone(&self.permits).try_acquire_owned();
        let runs_now = permit.is_ok();
        let permits = Arc::clone(&self.permits);
        let mut task = tokio::spawn(async move {
            let permit: Option<OwnedSemaphorePermit> = match permit {
                Ok(permit) => Some(permit),
                // Never closed.
                Err(_) => permits.acquire_owned().await.ok(),
            };
            let attempted = attempt.run().await;
            drop(permit);
            attempted
        });
        if runs_now
            && !patience.is_zero()
            && let Ok(attempted) = timeout(patience, &mut task).await
        {
            return Some(attempted);
        }
        self.running[kind as usize] = Some(Running { all_criteria, task });
        None
    }

    /// Waits for the next statement that ends. Without any, for ever.
    pub(super) async fn ended(&mut self) -> (HashSet<Criteria>, Result<Attempted, JoinError>) {
        let [one, other] = &mut self.running;
        let attempted = match select(std::pin::pin!(end(one)), std::pin::pin!(end(other))).await {
            Either::Left((attempted, _)) => (0, attempted),
            Either::Right((attempted, _)) => (1, attempted),
        };
        let (position, attempted) = attempted;
        let all_criteria = self.running[position].take().map(|running| running.all_criteria);
        (all_criteria.unwrap_or_default(), attempted)
    }
}

/// Nobody waits for what is still running: it would lease accounts that no caller hears of.
impl Drop for SideStatements {
    fn drop(&mut self) {
        self.running.iter().flatten().for_each(|running| running.task.abort());
    }
}

async fn end(running: &mut Option<Running>) -> Result<Attempted, JoinError> {
    match running {
        Some(running) => (&mut running.task).await,
        None => pending().await,
    }
}
