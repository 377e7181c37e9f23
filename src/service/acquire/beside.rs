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

use super::{slow::Kind, turns::Wish};
use crate::{
    domain::id::{PoolId, RequestId},
    store::{
        Store, StoreError,
        acquire::{Acquired, Selector, Wanted},
        walks::Walks,
    },
};

/// A statement for some who wait with the same selector.
pub(super) struct Attempt {
    pub(super) store: Store,
    pub(super) pool_id: PoolId,
    pub(super) selector: Arc<Selector>,
    pub(super) wanted: Vec<Wanted>,
    pub(super) walks: Walks,
    /// Whose walks these are.
    pub(super) walked_for: Wish,
}

/// What it came to.
pub(super) struct Attempted {
    pub(super) selector: Arc<Selector>,
    /// What each expects.
    pub(super) hopes: HashMap<RequestId, Option<i64>>,
    pub(super) walks: Walks,
    pub(super) walked_for: Wish,
    pub(super) took: Duration,
    pub(super) found: Result<HashMap<RequestId, Acquired>, StoreError>,
}

impl Attempt {
    pub(super) async fn run(mut self) -> Attempted {
        let begun = Instant::now();
        let found =
            self.store.acquire(&self.pool_id, &self.selector, &self.wanted, &mut self.walks).await;
        let hopes = self.wanted.into_iter().map(|w| (w.request_id, w.expected_minor)).collect();
        let (selector, walks, walked_for) = (self.selector, self.walks, self.walked_for);
        Attempted { selector, hopes, walks, walked_for, took: begun.elapsed(), found }
    }

    pub(super) fn wishes(&self) -> HashSet<Wish> {
        let wish = |wanted: &Wanted| Wish {
            selector: Arc::clone(&self.selector),
            expected_minor: wanted.expected_minor,
        };
        self.wanted.iter().map(wish).collect()
    }
}

struct Running {
    wishes: HashSet<Wish>,
    task: JoinHandle<Attempted>,
}

/// See [the module](self).
pub(super) struct Beside {
    running: [Option<Running>; Kind::ALL.len()],
    /// Shared by all pools: so many such statements run at once, and the other connections are left to whatever
    /// else there is to do. First come, first served, so that no pool keeps another out.
    permits: Arc<Semaphore>,
}

impl Beside {
    pub(super) fn new(permits: Arc<Semaphore>) -> Self {
        Self { running: [None, None], permits }
    }

    pub(super) fn is_free(&self, kind: Kind) -> bool {
        self.running[kind as usize].is_none()
    }

    /// Whether a statement for whoever asks so is running.
    pub(super) fn is_for(&self, wish: &Wish) -> bool {
        self.running.iter().flatten().any(|running| running.wishes.contains(wish))
    }

    /// Starts a statement, and waits for it for so long, if it can run now. After that it goes on beside.
    pub(super) async fn start(
        &mut self,
        kind: Kind,
        attempt: Attempt,
        patience: Duration,
    ) -> Option<Result<Attempted, JoinError>> {
        let wishes = attempt.wishes();
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
        self.running[kind as usize] = Some(Running { wishes, task });
        None
    }

    /// Waits for the next statement that ends. Without any, for ever.
    pub(super) async fn ended(&mut self) -> (HashSet<Wish>, Result<Attempted, JoinError>) {
        let [one, other] = &mut self.running;
        let attempted = match select(std::pin::pin!(end(one)), std::pin::pin!(end(other))).await {
            Either::Left((attempted, _)) => (0, attempted),
            Either::Right((attempted, _)) => (1, attempted),
        };
        let (place, attempted) = attempted;
        let wishes = self.running[place].take().map(|running| running.wishes);
        (wishes.unwrap_or_default(), attempted)
    }
}

async fn end(running: &mut Option<Running>) -> Result<Attempted, JoinError> {
    match running {
        Some(running) => (&mut running.task).await,
        None => pending().await,
    }
}
