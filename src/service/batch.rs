//! `BatchRedeem`: a stream of cards, each into an account that is picked for it.
//!
//! An item's redemption stands for the request `batch:BATCH_ID:ITEM_ID`. That is all that a batch is:
//! opening it again finds what was begun by those names, and nothing else has to be kept.

pub mod inquiry;
mod item;

use std::{
    collections::HashMap,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use futures_util::{Stream, StreamExt as _};
use time::OffsetDateTime;
use tokio::{
    sync::mpsc,
    task::{self, JoinError, JoinSet},
    time::{Instant, MissedTickBehavior, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{inquiry::Inquiry, item::Item};
use super::{
    Error,
    acquire::Acquire,
    pools::{Pools, check_currencies},
    providers::Providers,
    redeem::{Redeem, Redeemed},
    release::Leases,
};
use crate::{
    admission::{OpenItem as Room, Origin, origin},
    domain::{
        id::{BatchId, Holder, ItemId, PoolId},
        money::Money,
        pool::Pool,
        principal::Authority,
        redemption::{CardCode, RedemptionState},
        selector::Selector,
    },
    store::Store,
};

/// How often progress is told, while there is any.
const PROGRESS: Duration = Duration::from_secs(1);
/// The most bytes of the items under way, before no more are read: one of the size of a message is
/// always taken.
const MAX_ITEM_BYTES: usize = 4 * 1024 * 1024;
/// Results that wait for the client to read them. When it does not, no more items are begun.
const UNREAD_RESULTS: usize = 32;
/// How long a client may take to read results when the server stops. What it does not read is told when the
/// batch is opened again.
const UNREAD_AT_CLOSING: Duration = Duration::from_secs(1);

/// Opens a batch.
#[derive(Clone, Debug)]
pub struct BatchOpen {
    /// Its name.
    pub batch_id: BatchId,
    /// Its pool.
    pub pool_id: PoolId,
    /// Who asks, by its own word.
    pub holder: Holder,
    /// Who calls, and what of others it may read.
    pub by: Arc<Authority>,
    /// Which accounts may be picked.
    pub selection: Selection,
    /// How many items may be under way at once.
    pub max_in_flight: usize,
    /// How long an item waits for an account.
    pub item_timeout: Duration,
}

/// Which accounts may be picked, with the currency that the headroom was given in.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// As the store takes it.
    pub selector: Selector,
    /// The headroom as it was given.
    pub min_headroom: Option<Money>,
    /// What each card is going to bring.
    pub expected: Option<Money>,
}

/// A card of a batch.
#[derive(Clone, Debug)]
pub struct BatchItem {
    /// Its name.
    pub item_id: ItemId,
    /// The card.
    pub code: CardCode,
    /// What it should be worth.
    pub expected: Option<Money>,
    /// Replaces, field by field, what the batch says.
    pub selection: Selection,
    /// A higher one is served first.
    pub priority: u8,
    /// It is not begun before this time.
    pub not_before: Option<OffsetDateTime>,
    /// How long its message was.
    pub bytes: usize,
}

/// What the client sent after opening.
#[derive(Clone, Debug)]
pub enum Incoming {
    /// A card.
    Item(BatchItem),
    /// Something that is not a card, by the name that it gave itself.
    Malformed(String, Error),
}

/// What the client gets.
#[derive(Debug)]
pub enum BatchEvent {
    /// What became of an item.
    Result {
        /// The item, by the name that it gave itself.
        item_id: String,
        /// The redemption, or why none was begun.
        outcome: Box<Result<Redeemed, Error>>,
    },
    /// How far the batch is.
    Progress(Counts),
    /// The result of the batch. The last event.
    Summary(Counts),
    /// The batch ends early; opened again it goes on. The last event.
    Stopped(Error),
}

/// The items of a batch, by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Read.
    pub received: i64,
    /// Under way.
    pub in_flight: i64,
    /// Credited.
    pub succeeded: i64,
    /// Not credited.
    pub failed: i64,
    /// Not known yet.
    pub in_doubt: i64,
    /// Not begun.
    pub rejected: i64,
    /// Of those not credited: redeemed again when the batch is opened again.
    pub retryable: i64,
    /// Of those under way: held back until the provider takes calls.
    pub held_back: i64,
}

impl Counts {
    /// Items that have a redemption, whatever became of it.
    fn begun(&self) -> i64 {
        self.succeeded + self.failed + self.in_doubt
    }
}

/// The redeeming of batches. Cheap to clone.
#[derive(Clone)]
pub struct Batch(Arc<Inner>);

/// What batches are made of.
#[derive(Clone)]
pub struct Services {
    /// For what a batch names, and whether it was open before.
    pub store: Store,
    /// For the pool's settings.
    pub pools: Pools,
    /// The providers.
    pub providers: Providers,
    /// For items that say no amount.
    pub inquiry: Inquiry,
    /// For each item's account.
    pub acquire: Acquire,
    /// For each item's redemption.
    pub redeem: Redeem,
    /// For leases that are not used.
    pub leases: Leases,
}

struct Inner {
    services: Services,
    /// How often progress is told without any: something between, such as a proxy, ends a stream that is silent.
    heartbeat: Duration,
    tasks: TaskTracker,
    closing: CancellationToken,
}

impl Batch {
    /// Batches over the single-card services. When `closing` is cancelled, batches stop reading.
    pub fn new(
        services: Services,
        heartbeat: Duration,
        tasks: TaskTracker,
        closing: CancellationToken,
    ) -> Self {
        Self(Arc::new(Inner { services, heartbeat, tasks, closing }))
    }

    /// Cancelled when batches stop reading.
    pub fn closing(&self) -> &CancellationToken {
        &self.0.closing
    }

    /// Opens a batch, and redeems what `items` brings until it ends. The work runs in tasks of its
    /// own: when the receiver is dropped, what was begun is finished all the same. Answers with the
    /// pool and the events.
    pub async fn open<S>(
        &self,
        open: BatchOpen,
        items: S,
    ) -> Result<(Pool, mpsc::Receiver<BatchEvent>), Error>
    where
        S: Stream<Item = Result<Incoming, Error>> + Send + Unpin + 'static,
    {
        let pool = self.0.services.pools.get(&open.pool_id).await?;
        check_currencies(
            &pool,
            [
                ("open.selector.min_headroom", open.selection.min_headroom),
                ("open.selector.expected", open.selection.expected),
            ],
        )?;
        if let Some(plan_id) = &open.selection.selector.plan_id
            && self.0.services.store.get_plan(&open.pool_id, plan_id).await?.is_none()
        {
            return Err(Error::PlanNotFound(open.pool_id, plan_id.clone()));
        }
        let store = &self.0.services.store;
        let resumed = store.batch_exists(&open.pool_id, &open.batch_id, &open.by.principal).await?;
        // What is known of one that was opened before is told all the same.
        if !resumed && pool.paused {
            return Err(Error::PoolPaused(pool.pool_id));
        }
        if !resumed && pool.draining {
            return Err(Error::PoolDraining(pool.pool_id));
        }
        let (events, receiver) = mpsc::channel(UNREAD_RESULTS);
        let driver = Driver {
            batch: Arc::clone(&self.0),
            open: Arc::new(open),
            pool: Arc::new(pool.clone()),
            resumed,
            origin: origin::current(),
            events,
            client_gone: CancellationToken::new(),
            held_back: Arc::default(),
            running: JoinSet::new(),
            open_items: HashMap::new(),
            bytes: 0,
            counts: Counts::default(),
            told: Counts::default(),
            spoke: Instant::now(),
        };
        self.0.tasks.spawn(driver.run(items));
        Ok((pool, receiver))
    }
}

/// One open batch.
struct Driver {
    batch: Arc<Inner>,
    open: Arc<BatchOpen>,
    pool: Arc<Pool>,
    /// Some of its items were begun before it was opened this time.
    resumed: bool,
    /// Whom its items are counted for.
    origin: Option<Arc<Origin>>,
    events: mpsc::Sender<BatchEvent>,
    client_gone: CancellationToken,
    /// How many of its items wait for the provider to take calls.
    held_back: Arc<AtomicI64>,
    running: JoinSet<Result<Redeemed, Error>>,
    open_items: HashMap<task::Id, OpenItem>,
    /// The results of those.
    bytes: usize,
    counts: Counts,
    told: Counts,
    /// When something was told.
    spoke: Instant,
}

/// An item under way.
struct OpenItem {
    name: String,
    bytes: usize,
    #[allow(dead_code, reason = "it is kept, not read")]
    room: Room,
}

impl Driver {
    async fn run<S>(mut self, mut items: S)
    where
        S: Stream<Item = Result<Incoming, Error>> + Send + Unpin,
    {
        tracing::info!(
            pool_id = %self.open.pool_id, batch_id = %self.open.batch_id, resumed = self.resumed,
            "batch opened"
        );
        let mut progress = tokio::time::interval(PROGRESS);
        progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut end = None;
        // First come, first served among the batches of a caller in the pool.
        let overload = self.batch.services.store.overload().clone();
        let pool_id = self.open.pool_id.clone();
        let origin = self.origin.as_ref().map(|origin| Arc::clone(origin.name()));
        let origin = origin.unwrap_or_default();
        let mut room = pin!(overload.open_item(pool_id.as_str(), &origin));
        let mut has_room = None;
        while end.is_none() || !self.running.is_empty() {
            let wants = end.is_none()
                && self.running.len() < self.open.max_in_flight
                && self.bytes < MAX_ITEM_BYTES;
            tokio::select! {
                Some(done) = self.running.join_next_with_id() => self.finish(done).await,
                permit = &mut room, if wants && has_room.is_none() => {
                    has_room = Some(permit);
                    room.set(overload.open_item(pool_id.as_str(), &origin));
                }
                item = items.next(), if wants && has_room.is_some() => match item {
                    Some(Ok(item)) => self.take(item, &mut has_room).await,
                    Some(Err(error)) => end = Some(Err(error)),
                    None => end = Some(Ok(())),
                },
                _ = progress.tick() => self.tell_progress(),
                () = self.events.closed(), if !self.client_gone.is_cancelled() => {
                    self.client_gone.cancel();
                    end = Some(Ok(()));
                }
                () = self.batch.closing.cancelled(), if end.is_none() => {
                    end = Some(Err(Error::ShuttingDown));
                }
            }
        }
        let last = match end {
            Some(Err(error)) => {
                BatchEvent::Stopped(error.of_stream(self.counts.received, self.counts.begun()))
            }
            _ => BatchEvent::Summary(self.counts),
        };
        tracing::info!(
            pool_id = %self.open.pool_id, batch_id = %self.open.batch_id, counts = ?self.counts,
            client_gone = self.client_gone.is_cancelled(), "batch ended"
        );
        self.send(last).await;
    }

    async fn take(&mut self, incoming: Incoming, room: &mut Option<Room>) {
        self.counts.received += 1;
        match incoming {
            Incoming::Malformed(item_id, error) => self.tell(item_id, Err(error)).await,
            Incoming::Item(item) => {
                let (name, bytes) = (item.item_id.to_string(), item.bytes);
                let work = Item {
                    batch: Arc::clone(&self.batch),
                    open: Arc::clone(&self.open),
                    pool: Arc::clone(&self.pool),
                    resumed: self.resumed,
                    client_gone: self.client_gone.clone(),
                    held_back: Arc::clone(&self.held_back),
                    item,
                };
                let origin = self.origin.clone();
                let task =
                    self.running.spawn(origin::scope(origin, async move { work.run().await }));
                if let Some(room) = room.take() {
                    self.open_items.insert(task.id(), OpenItem { name, bytes, room });
                }
                self.bytes += bytes;
                self.counts.in_flight += 1;
            }
        }
    }

    async fn finish(&mut self, done: Result<(task::Id, Result<Redeemed, Error>), JoinError>) {
        let (id, outcome) = match done {
            Ok(done) => done,
            Err(error) => (error.id(), Err(Error::Internal("the item's task ended early"))),
        };
        self.counts.in_flight -= 1;
        let item = self.open_items.remove(&id);
        self.bytes -= item.as_ref().map_or(0, |item| item.bytes);
        self.tell(item.map(|item| item.name).unwrap_or_default(), outcome).await;
    }

    async fn tell(&mut self, item_id: String, outcome: Result<Redeemed, Error>) {
        let count = match &outcome {
            Err(_) => &mut self.counts.rejected,
            Ok(redeemed) => match redeemed.redemption.state {
                RedemptionState::Succeeded => &mut self.counts.succeeded,
                RedemptionState::Failed => &mut self.counts.failed,
                _ => &mut self.counts.in_doubt,
            },
        };
        *count += 1;
        if outcome.as_ref().is_ok_and(|redeemed| redeemed.redemption.is_retryable()) {
            self.counts.retryable += 1;
        }
        let outcome = Box::new(outcome);
        self.send(BatchEvent::Result { item_id, outcome }).await;
        self.spoke = Instant::now();
    }

    /// Waits for the client to read, but not when the server stops: then it is as if it had gone.
    async fn send(&self, event: BatchEvent) {
        let unread = async {
            self.batch.closing.cancelled().await;
            sleep(UNREAD_AT_CLOSING).await;
        };
        if self.client_gone.is_cancelled() {
            return;
        }
        tokio::select! {
            // An error means that the client has gone; `run` sees that for itself.
            _ = self.events.send(event) => {}
            () = unread => self.client_gone.cancel(),
        }
    }

    /// When there is any, and when nothing was told for long. Left out when the client has results to read
    /// first.
    fn tell_progress(&mut self) {
        // The ticks come at that interval, and one that comes early must not cost another.
        self.counts.held_back = self.held_back.load(Ordering::Relaxed);
        let is_quiet = self.spoke.elapsed() + PROGRESS / 2 >= self.batch.heartbeat;
        if (is_quiet || self.counts != self.told)
            && self.events.try_send(BatchEvent::Progress(self.counts)).is_ok()
        {
            self.told = self.counts;
            self.spoke = Instant::now();
        }
    }
}

/// What was begun is finished, whatever ends the batch.
impl Drop for Driver {
    fn drop(&mut self) {
        self.running.detach_all();
    }
}
