//! `AcquireAccount`: who gets which free account, and who waits.
//!
//! Each pool has one dispatcher, a task that holds the queue of those who want an account, first
//! come, first served. It is the lane in front of the acquire statement: those who want the same, up to
//! the first who wants something else and may still hope, are served by one. Those who find nothing stay, and are tried again when an account is given
//! back on this server, and every [`POLL`] for what other servers give back. One that nothing can
//! satisfy does not hold up those behind it who want something else.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::RngExt as _;
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    error::{Error, all},
    pools::{Pools, check_currencies, lease_duration},
};
use crate::{
    domain::{
        id::{Holder, PoolId, RequestId},
        lease::{LeaseLoss, LeaseRef},
        money::Money,
    },
    injection::{self, Guard},
    store::{
        Store, StoreError,
        lease::{Acquired, Selector, Unavailable, Wanted},
    },
};

/// How often those who wait are tried again when nothing wakes them. Of each, a random part is left
/// out, so that servers do not ask at the same moment.
const POLL: Duration = Duration::from_millis(200);
/// The most callers that may wait for one pool's accounts. One more is refused as overload.
const MAX_WAITING: usize = 16_384;
/// The most requests of one statement.
const MAX_ROWS: usize = 256;
/// The least time between two looks for leases whose time has passed, while somebody waits.
const EXPIRE_AT_MOST_EVERY: Duration = Duration::from_millis(100);
/// How long those who find no database go on waiting for one, at the least, however short their own
/// time to wait for an account is: as long as callers of the store's lanes.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long an account of why nothing was free is good for others who ask the same.
const COUNTS_FRESH: Duration = Duration::from_millis(250);

/// A lease that is asked for.
#[derive(Clone, Debug)]
pub struct AcquireCommand {
    /// The wish.
    pub request_id: RequestId,
    /// Of this pool.
    pub pool_id: PoolId,
    /// Who asks.
    pub holder: Holder,
    /// How long the lease is to last; the pool's own duration when not given.
    pub ttl: Option<Duration>,
    /// How long to wait for an account to be free.
    pub wait: Duration,
    /// Which accounts may be picked.
    pub selector: Selector,
    /// In which currency the selector's headroom was given.
    pub min_headroom: Option<Money>,
}

/// The acquiring of accounts. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Acquire {
    store: Store,
    pools: Pools,
    queues: Arc<Mutex<HashMap<PoolId, Queue>>>,
    closing: CancellationToken,
}

#[derive(Clone, Debug)]
struct Queue {
    waiters: mpsc::Sender<Waiter>,
    freed: Arc<Freed>,
}

/// How often an account may have become free on this server, and the bell that rings when one may.
#[derive(Debug, Default)]
struct Freed {
    count: AtomicU64,
    bell: Notify,
}

#[derive(Debug)]
struct Waiter {
    wanted: Wanted,
    selector: Arc<Selector>,
    since: Instant,
    until: Instant,
    /// What it names is known to exist.
    checked: bool,
    /// It was tried, and there was no database.
    unanswered: bool,
    reply: oneshot::Sender<Result<Acquired, Error>>,
}

impl Acquire {
    /// Acquires from `store`. When `closing` is cancelled, those who wait are told so.
    pub fn new(store: Store, pools: Pools, closing: CancellationToken) -> Self {
        Self { store, pools, queues: Arc::default(), closing }
    }

    /// Leases an account, waiting for one up to `command.wait`.
    pub async fn acquire(&self, command: AcquireCommand) -> Result<Acquired, Error> {
        let pool = self.pools.settings(&command.pool_id).await?;
        let ttl = lease_duration(&pool, command.ttl);
        let currencies = check_currencies(&pool, [("selector.min_headroom", command.min_headroom)]);
        all([ttl.clone().map(drop), currencies])?;
        let ttl = ttl?;
        let (reply, answer) = oneshot::channel();
        let mut answer = Answer { answer, acquire: self.clone(), pool_id: command.pool_id.clone() };
        let now = Instant::now();
        let waiter = Waiter {
            wanted: Wanted {
                request_id: command.request_id.clone(),
                holder: command.holder.clone(),
                ttl,
            },
            selector: Arc::new(command.selector.clone()),
            since: now,
            until: now + command.wait,
            checked: false,
            unanswered: false,
            reply,
        };
        let queue = self.queue(&command.pool_id);
        queue.waiters.try_send(waiter).map_err(|_| StoreError::Overloaded)?;
        let acquired = (&mut answer.answer).await.unwrap_or(Err(Error::ShuttingDown))?;
        if !acquired.fresh {
            check_same_wish(&command, &acquired)?;
        }
        log_locked(&acquired);
        Ok(acquired)
    }

    /// Tells those who wait for the pool's accounts that one may be free.
    pub fn wake(&self, pool_id: &PoolId) {
        let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = queues.get(pool_id) {
            queue.freed.count.fetch_add(1, Ordering::Relaxed);
            queue.freed.bell.notify_one();
        }
    }

    fn queue(&self, pool_id: &PoolId) -> Queue {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = queues.get(pool_id)
            && !queue.waiters.is_closed()
        {
            return queue.clone();
        }
        let (waiters, arrivals) = mpsc::channel(MAX_WAITING);
        let queue = Queue { waiters, freed: Arc::default() };
        let dispatcher = Dispatcher {
            store: self.store.clone(),
            pool_id: pool_id.clone(),
            arrivals,
            freed: Arc::clone(&queue.freed),
            waiting: VecDeque::new(),
            expired_at: None,
            counts: Arc::default(),
            closing: self.closing.clone(),
            waiting_gauge: metrics::gauge!(
                "holdfast_acquire_waiting", "pool_id" => pool_id.to_string()
            ),
        };
        tokio::spawn(dispatcher.run());
        queues.insert(pool_id.clone(), queue.clone());
        queue
    }
}

/// What a caller waits for. A caller who goes away after the lease was handed to it, and before it
/// could look, gives it back here: nobody knows of it.
struct Answer {
    answer: oneshot::Receiver<Result<Acquired, Error>>,
    acquire: Acquire,
    pool_id: PoolId,
}

impl Drop for Answer {
    fn drop(&mut self) {
        let Ok(Ok(acquired)) = self.answer.try_recv() else { return };
        if !acquired.fresh {
            return;
        }
        let lease = LeaseRef {
            pool_id: self.pool_id.clone(),
            account_id: acquired.account.account_id,
            token: acquired.account.token,
        };
        let acquire = self.acquire.clone();
        tokio::spawn(async move {
            give_back(&acquire.store, &lease).await;
            acquire.wake(&lease.pool_id);
        });
    }
}

/// Ends a lease that nobody knows of.
async fn give_back(store: &Store, lease: &LeaseRef) {
    if let Err(error) = store.release(lease).await {
        tracing::warn!(
            pool_id = %lease.pool_id, account_id = %lease.account_id, %error,
            "a lease that nobody took could not be released, and ends by itself"
        );
    }
}

/// A request that has a lease already must be the same wish.
fn check_same_wish(command: &AcquireCommand, acquired: &Acquired) -> Result<(), Error> {
    let account = &acquired.account;
    let mut differ = Vec::new();
    if account.lease.as_ref().is_some_and(|lease| lease.holder != command.holder) {
        differ.push("holder");
    }
    let selector = &command.selector;
    if selector.account_id.as_ref().is_some_and(|id| *id != account.account_id) {
        differ.push("selector.account_id");
    }
    if selector.plan_id.is_some() && selector.plan_id != account.plan_id {
        differ.push("selector.plan_id");
    }
    if selector.country_code.is_some() && selector.country_code != account.country_code {
        differ.push("selector.country_code");
    }
    if !differ.is_empty() {
        return Err(Error::RequestIdReused { request_id: command.request_id.clone(), differ });
    }
    Ok(())
}

fn log_locked(acquired: &Acquired) {
    let account = &acquired.account;
    let Some(lease) = &account.lease else { return };
    tracing::info!(
        pool_id = %account.pool_id,
        account_id = %account.account_id,
        original_status = acquired.original_status.as_str(),
        fencing_token = account.token.0,
        holder = %lease.holder,
        lease_ms = u64::try_from(lease.remaining.as_millis()).unwrap_or(u64::MAX),
        again = !acquired.fresh,
        "locked"
    );
}

type Counts = Arc<tokio::sync::Mutex<HashMap<Arc<Selector>, (Instant, Unavailable)>>>;

/// The one who hands out a pool's accounts on this server.
struct Dispatcher {
    store: Store,
    pool_id: PoolId,
    arrivals: mpsc::Receiver<Waiter>,
    freed: Arc<Freed>,
    /// In the order of arrival.
    waiting: VecDeque<Waiter>,
    expired_at: Option<Instant>,
    counts: Counts,
    closing: CancellationToken,
    /// How many wait, for operators.
    waiting_gauge: metrics::Gauge,
}

impl Dispatcher {
    async fn run(mut self) {
        loop {
            if !self.gather().await {
                return self.close();
            }
            match self.serve().await {
                Ok(()) => self.dismiss(),
                Err(why) => self.no_database(&why),
            }
            self.waiting_gauge.set(self.waiting.len() as f64);
        }
    }

    /// Waits until there is something to do: somebody arrives, an account may be free, or somebody's
    /// time is over. False when the server is closing.
    async fn gather(&mut self) -> bool {
        let now = Instant::now();
        let poll = now + POLL.mul_f64(rand::rng().random_range(0.5..1.0));
        // Those whose time is over already wait for a database alone, and are tried at the next poll.
        let ends = self.waiting.iter().map(|waiter| waiter.until).filter(|until| *until > now);
        let next = (!self.waiting.is_empty()).then(|| ends.min().map_or(poll, |at| at.min(poll)));
        let idle = async {
            match next {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.closing.cancelled() => return false,
            arrived = self.arrivals.recv() => match arrived {
                Some(waiter) => self.waiting.push_back(waiter),
                None => return false,
            },
            () = self.freed.bell.notified(), if !self.waiting.is_empty() => {}
            () = idle => {}
        }
        while self.waiting.len() < MAX_WAITING
            && let Ok(waiter) = self.arrivals.try_recv()
        {
            self.waiting.push_back(waiter);
        }
        self.waiting.retain(|waiter| !waiter.reply.is_closed());
        true
    }

    fn close(mut self) {
        self.arrivals.close();
        while let Ok(waiter) = self.arrivals.try_recv() {
            self.waiting.push_back(waiter);
        }
        for waiter in self.waiting {
            let _ = waiter.reply.send(Err(Error::ShuttingDown));
        }
    }

    /// Serves those who wait, until nobody more can be. Says why when there was no database.
    async fn serve(&mut self) -> Result<(), String> {
        let mut exhausted: HashSet<Arc<Selector>> = HashSet::new();
        let mut freed = self.freed.count.load(Ordering::Relaxed);
        // A pass must end even while accounts come back all the time: others arrive, and time passes.
        let mut restarts = 4;
        loop {
            // What became free meanwhile is theirs first who were tried in vain before.
            let freed_now = self.freed.count.load(Ordering::Relaxed);
            if std::mem::replace(&mut freed, freed_now) != freed_now && restarts > 0 {
                restarts -= 1;
                exhausted.clear();
            }
            let Some((selector, wanted)) = self.next_group(&exhausted) else { return Ok(()) };
            let asked = wanted.len();
            match self.store.acquire(&self.pool_id, &selector, &wanted).await {
                Ok(found) => {
                    let given = self.hand_out(found).await;
                    if given < asked && !self.end_expired().await {
                        self.check(&selector).await;
                        exhausted.insert(selector);
                    }
                }
                Err(StoreError::Unavailable(why)) => return Err(why),
                Err(error) => {
                    self.refuse(&selector, &Error::Store(error));
                    exhausted.insert(selector);
                }
            }
        }
    }

    /// The first waiter whose wish is not known to be without hope, and those after it who wish the
    /// same, up to the first who wishes something else and may still hope: of accounts that are free
    /// when a round begins, nobody gets one before somebody who came earlier and could have had it.
    fn next_group(
        &self,
        exhausted: &HashSet<Arc<Selector>>,
    ) -> Option<(Arc<Selector>, Vec<Wanted>)> {
        let first = self.waiting.iter().find(|waiter| !exhausted.contains(&waiter.selector))?;
        let selector = Arc::clone(&first.selector);
        let mut requests = HashSet::new();
        let wanted: Vec<_> = self
            .waiting
            .iter()
            // The same request twice is one wish: the second is served when the first has its lease.
            .take_while(|w| w.selector == selector || exhausted.contains(&w.selector))
            .filter(|w| w.selector == selector && requests.insert(&w.wanted.request_id))
            .take(MAX_ROWS)
            .map(|waiter| waiter.wanted.clone())
            .collect();
        Some((selector, wanted))
    }

    /// Gives each lease to the first who waits for it. Answers how many were served.
    async fn hand_out(&mut self, mut found: HashMap<RequestId, Acquired>) -> usize {
        let mut given = 0;
        let mut kept = VecDeque::with_capacity(self.waiting.len());
        let mut unwanted = Vec::new();
        for waiter in std::mem::take(&mut self.waiting) {
            let Some(acquired) = found.remove(&waiter.wanted.request_id) else {
                kept.push_back(waiter);
                continue;
            };
            given += 1;
            let lease = LeaseRef {
                pool_id: self.pool_id.clone(),
                account_id: acquired.account.account_id.clone(),
                token: acquired.account.token,
            };
            let over = acquired.account.lease.as_ref().is_none_or(|l| l.remaining.is_zero())
                && injection::holds(Guard::HandedOutAlive);
            if acquired.account.lease.as_ref().is_some_and(|lease| lease.release_requested) {
                let loss = LeaseLoss::Released;
                let _ = waiter.reply.send(Err(Error::LeaseLost { lease, loss }));
            } else if over && acquired.account.open_redemption_id.is_some() {
                let _ =
                    waiter.reply.send(Err(Error::LeaseLost { lease, loss: LeaseLoss::Expired }));
            } else if over {
                // The request's last lease has run out and nobody has looked yet: it makes way.
                given -= 1;
                self.expired_at = None;
                kept.push_back(waiter);
            } else {
                let fresh = acquired.fresh;
                if waiter.reply.send(Ok(acquired)).is_err() && fresh {
                    unwanted.push(lease);
                }
            }
        }
        self.waiting = kept;
        for lease in unwanted {
            give_back(&self.store, &lease).await;
        }
        given
    }

    /// Ends leases whose time has passed. True when there were any.
    async fn end_expired(&mut self) -> bool {
        if self.expired_at.is_some_and(|at| at.elapsed() < EXPIRE_AT_MOST_EVERY) {
            return false;
        }
        self.expired_at = Some(Instant::now());
        let limit = i64::try_from(MAX_ROWS).unwrap_or(i64::MAX);
        match self.store.expire(&self.pool_id, limit, "acquirer").await {
            Ok(ended) => {
                ended.iter().for_each(super::sweep::log_expired);
                !ended.is_empty()
            }
            Err(error) => {
                tracing::warn!(pool_id = %self.pool_id, %error, "expired leases could not be looked for");
                false
            }
        }
    }

    /// Refuses those who wait for something that is not there, or that is paused: waiting is no use.
    async fn check(&mut self, selector: &Arc<Selector>) {
        if !self.waiting.iter().any(|waiter| waiter.selector == *selector && !waiter.checked) {
            return;
        }
        match missing(&self.store, &self.pool_id, selector).await {
            Ok(None) => {
                let same = self.waiting.iter_mut().filter(|waiter| waiter.selector == *selector);
                same.for_each(|waiter| waiter.checked = true);
            }
            Ok(Some(error)) => self.refuse(selector, &error),
            Err(error) => {
                tracing::warn!(pool_id = %self.pool_id, %error, "a selector could not be checked");
            }
        }
    }

    fn refuse(&mut self, selector: &Arc<Selector>, error: &Error) {
        for waiter in std::mem::take(&mut self.waiting) {
            if waiter.selector == *selector {
                let _ = waiter.reply.send(Err(error.clone()));
            } else {
                self.waiting.push_back(waiter);
            }
        }
    }

    /// Those who have waited long enough for a database are told that there is none; the others go on
    /// waiting. What was asked for them may have been done, and is found when they are tried again.
    fn no_database(&mut self, why: &str) {
        let now = Instant::now();
        for mut waiter in std::mem::take(&mut self.waiting) {
            // Once more in any case: one try may have taken all the time, without an answer.
            let tried_before = std::mem::replace(&mut waiter.unanswered, true);
            if tried_before && waiter.until.max(waiter.since + PATIENCE) <= now {
                let _ = waiter.reply.send(Err(StoreError::Unavailable(why.to_owned()).into()));
            } else {
                self.waiting.push_back(waiter);
            }
        }
    }

    /// Tells those whose time is over why they got nothing.
    fn dismiss(&mut self) {
        let mut groups: HashMap<Arc<Selector>, Vec<Waiter>> = HashMap::new();
        for waiter in self.take_overdue() {
            groups.entry(Arc::clone(&waiter.selector)).or_default().push(waiter);
        }
        for (selector, waiters) in groups {
            let explain = explain(
                self.store.clone(),
                self.pool_id.clone(),
                selector,
                Arc::clone(&self.counts),
                waiters,
            );
            tokio::spawn(explain);
        }
    }

    fn take_overdue(&mut self) -> Vec<Waiter> {
        let now = Instant::now();
        let (overdue, kept) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition::<VecDeque<_>, _>(|waiter| waiter.until <= now);
        self.waiting = kept;
        overdue.into()
    }
}

/// What a selector names that is not there, or why waiting is no use.
async fn missing(
    store: &Store,
    pool_id: &PoolId,
    selector: &Selector,
) -> Result<Option<Error>, StoreError> {
    let check = store.check_selector(pool_id, selector).await?;
    Ok(if !check.pool_exists {
        Some(Error::PoolNotFound(pool_id.clone()))
    } else if check.pool_paused {
        Some(Error::PoolPaused(pool_id.clone()))
    } else if let (false, Some(plan_id)) = (check.plan_exists, &selector.plan_id) {
        Some(Error::PlanNotFound(pool_id.clone(), plan_id.clone()))
    } else if let (false, Some(account_id)) = (check.account_exists, &selector.account_id) {
        Some(Error::AccountNotFound(pool_id.clone(), account_id.clone()))
    } else {
        None
    })
}

/// Counts, once for all who ask at about the same time, why nothing was free, and tells them.
async fn explain(
    store: Store,
    pool_id: PoolId,
    selector: Arc<Selector>,
    known: Counts,
    waiters: Vec<Waiter>,
) {
    let counts = count(&store, &pool_id, &selector, &known).await;
    for waiter in waiters {
        let waited = waiter.until - waiter.since;
        let _ = waiter.reply.send(Err(match &counts {
            Ok(counts) => {
                Error::NoAccountAvailable { pool_id: pool_id.clone(), waited, counts: *counts }
            }
            Err(error) => error.clone(),
        }));
    }
}

async fn count(
    store: &Store,
    pool_id: &PoolId,
    selector: &Arc<Selector>,
    known: &Counts,
) -> Result<Unavailable, Error> {
    // Held while the accounts are counted: others who ask the same wait for the same answer.
    let mut known = known.lock().await;
    known.retain(|_, (at, _)| at.elapsed() < COUNTS_FRESH);
    if let Some((_, counts)) = known.get(selector) {
        return Ok(*counts);
    }
    if let Some(error) = missing(store, pool_id, selector).await? {
        return Err(error);
    }
    let counts = store.explain_acquire(pool_id, selector).await?;
    known.insert(Arc::clone(selector), (Instant::now(), counts));
    Ok(counts)
}

#[cfg(test)]
mod tests;
