//! `AcquireAccount`: who gets which free account, and who waits.
//!
//! Each pool has one dispatcher, a task that holds the queue of those who want an account, first come, first
//! served. It is the lane in front of the acquire statement. One statement serves those with the same selector, in
//! their order, up to the first with another selector that may still be served. Those who find nothing stay. They
//! are tried again when an account is given back on this server. A poll finds what other servers give back, and
//! what becomes usable with time. One that nothing can satisfy does not hold up those behind it. Criteria that
//! make a statement read much are checked beside the others (`slow.rs`).

mod dispatcher;
mod scans;
mod side_statements;
mod slow;
mod wait_queue;
mod why_none;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{
        Notify, OwnedSemaphorePermit, Semaphore,
        mpsc::{self, error::TrySendError},
        oneshot,
    },
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use self::{
    dispatcher::{Dispatcher, MAX_WAITING},
    scans::CursorsByCriteria,
    side_statements::SideStatements,
    slow::SlowCriteria,
    wait_queue::{MAX_ROWS, WaitQueue, Waiter},
};
use super::{
    error::{Error, all},
    poll::PollWindow,
    pools::{Pools, check_currencies, lease_duration},
};
use crate::{
    admission::{Caller, Queue as Measured},
    domain::{
        id::{Holder, PoolId, RequestId},
        lease::LeaseRef,
        money::Money,
    },
    store::{
        Store, StoreError,
        account::Account,
        acquire::{Acquired, Considered, Counts, Selector, Wanted},
        lease::LeaseAnswer,
        pool::Pool,
        scan::Freed,
    },
};

/// How long those may take to be told who wait when the server stops.
const CLOSING_GRACE: Duration = Duration::from_secs(1);
/// How many may ask at once on this server what an acquisition would make of one pool's accounts.
const MAX_EXPLAINING: usize = 2;
/// How long one more waits before it is refused.
const EXPLAIN_WAIT: Duration = Duration::from_secs(1);

/// A lease that is asked for.
#[derive(Clone, Debug)]
pub struct AcquireCommand {
    /// The caller's name for the request.
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
    /// What the card is going to bring.
    pub expected: Option<Money>,
    /// In which currency the selector's headroom was given.
    pub min_headroom: Option<Money>,
    /// Who asks: nothing is locked for one whose deadline has passed, and who waits for an account is not
    /// at work.
    pub caller: Caller,
}

/// The amounts of an acquisition that is to be explained, as they were given.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExplainAmounts {
    /// What the card is going to bring.
    pub expected: Option<Money>,
    /// In which currency the selector's headroom was given.
    pub min_headroom: Option<Money>,
}

/// What would become of an acquisition.
#[derive(Clone, Debug)]
pub struct Explained {
    /// The pool.
    pub pool: Pool,
    /// Accounts with what the choice makes of them: those that would be picked come first, in order.
    pub considered: Vec<(Account, Considered)>,
    /// How many accounts there are of each choice.
    pub counts: Counts,
}

/// The acquiring of accounts. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Acquire {
    store: Store,
    pools: Pools,
    queues: Arc<Mutex<HashMap<PoolId, Queue>>>,
    /// The permits to read a whole pool.
    explaining: Arc<Mutex<HashMap<PoolId, Arc<Semaphore>>>>,
    /// As many statements as may read much at once, of all pools.
    reads: Arc<Semaphore>,
    closing: CancellationToken,
}

#[derive(Clone, Debug)]
struct Queue {
    waiters: mpsc::Sender<Waiter>,
    freed: Arc<FreedHere>,
}

/// The most accounts that are remembered one by one as free since the last pass. A server that only settles and
/// releases has no pass.
const MAX_FREED: usize = 4096;

/// One connection in so many may be used by statements that read much for those who wait.
const SHARE_OF_READS: usize = 4;

/// What became free on this server since the last pass, and the bell that rings when something may have.
#[derive(Debug, Default)]
struct FreedHere {
    /// How often something did.
    count: AtomicU64,
    /// Those that may be before a scan cursor.
    accounts: Mutex<Vec<Freed>>,
    /// There may be others.
    anywhere: AtomicBool,
    bell: Notify,
}

impl FreedHere {
    fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    fn note(&self, freed: Option<Freed>) {
        if let Some(freed) = freed {
            let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
            if accounts.len() < MAX_FREED {
                accounts.push(freed);
            } else {
                self.anywhere.store(true, Ordering::Relaxed);
            }
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.bell.notify_one();
    }

    /// What came free since this was last asked, and whether there may be others.
    fn take(&self) -> (Vec<Freed>, bool) {
        let accounts =
            std::mem::take(&mut *self.accounts.lock().unwrap_or_else(PoisonError::into_inner));
        (accounts, self.anywhere.swap(false, Ordering::Relaxed))
    }
}

impl Acquire {
    /// Acquires from `store`. When `closing` is cancelled, those who wait are told so.
    pub fn new(store: Store, pools: Pools, closing: CancellationToken) -> Self {
        let reads = (store.connections() / SHARE_OF_READS).max(1);
        Self {
            store,
            pools,
            queues: Arc::default(),
            explaining: Arc::default(),
            reads: Arc::new(Semaphore::new(reads)),
            closing,
        }
    }

    /// Leases an account, waiting for one up to `command.wait`.
    pub async fn acquire(&self, command: AcquireCommand) -> Result<Acquired, Error> {
        let pool = self.pools.settings(&command.pool_id).await?;
        let ttl = lease_duration(&pool, command.ttl);
        let currencies = check_currencies(
            &pool,
            [
                ("selector.min_headroom", command.min_headroom),
                ("selector.expected", command.expected),
            ],
        );
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
                expected_minor: command.expected.map(|money| money.amount_minor),
            },
            selector: Arc::new(command.selector.clone()),
            share_percent: pool.holder_share_percent,
            since: now,
            until: now + command.wait,
            caller: command.caller.clone(),
            tried: false,
            checked: false,
            unanswered: false,
            reply,
        };
        self.queue_up(waiter, &command.pool_id).await?;
        // The dispatcher tells those who wait when the server stops, but not those whose accounts are being counted.
        let too_late = async {
            self.closing.cancelled().await;
            sleep(CLOSING_GRACE).await;
        };
        let answered = tokio::select! {
            biased;
            answered = &mut answer.answer => answered,
            () = too_late => return Err(Error::ShuttingDown),
        };
        let acquired = answered.unwrap_or_else(|_| {
            // Nobody is left who would answer; or it was dropped, because nobody waits for the answer.
            let over = command.caller.is_over();
            Err(if over { StoreError::DeadlinePassed.into() } else { Error::ShuttingDown })
        })?;
        if !acquired.fresh {
            check_same_request(&command, &acquired)?;
        }
        log_locked(&acquired);
        Ok(acquired)
    }

    /// Puts somebody at the end of the pool's queue. Where that is full a call is refused; the item of a
    /// stream waits for room, for as long as it would for an account. An item behind many who have just come
    /// keeps nobody of another pool from work meanwhile.
    async fn queue_up(&self, waiter: Waiter, pool_id: &PoolId) -> Result<(), Error> {
        let until = waiter.until;
        let is_item = waiter.caller.is_item();
        let waiters = self.queue(pool_id).waiters;
        if is_item && waiters.max_capacity() - waiters.capacity() >= MAX_ROWS {
            waiter.caller.step_aside();
        }
        let Err(TrySendError::Full(waiter)) = waiters.try_send(waiter) else {
            // Where the other end is gone, so is the one who answers, and the caller sees that.
            return Ok(());
        };
        if !is_item {
            return Err(StoreError::Overloaded.into());
        }
        let room = timeout_at(until, waiters.reserve()).await;
        room.map_err(|_| StoreError::Overloaded)?.map_err(|_| Error::ShuttingDown)?.send(waiter);
        Ok(())
    }

    /// What an acquisition would make of the pool's accounts now, without locking any. Answers the first `limit`
    /// of them, and how many there are of each choice. It reads the whole pool, so few may ask at a time, and when
    /// the caller goes away it is ended.
    pub async fn explain(
        &self,
        pool_id: &PoolId,
        selector: &Selector,
        amounts: ExplainAmounts,
        limit: i64,
    ) -> Result<Explained, Error> {
        let explain = self.explain_now(pool_id, selector, amounts, limit);
        self.closing.run_until_cancelled(explain).await.unwrap_or(Err(Error::ShuttingDown))
    }

    async fn explain_now(
        &self,
        pool_id: &PoolId,
        selector: &Selector,
        amounts: ExplainAmounts,
        limit: i64,
    ) -> Result<Explained, Error> {
        let pool = self.pools.get(pool_id).await?;
        check_currencies(
            &pool,
            [
                ("selector.min_headroom", amounts.min_headroom),
                ("selector.expected", amounts.expected),
            ],
        )?;
        if let Some(error) = why_none::missing(&self.store, pool_id, selector).await?
            && !matches!(error, Error::PoolPaused(_) | Error::PoolDraining(_))
        {
            return Err(error);
        }
        let expected_minor = amounts.expected.map(|money| money.amount_minor);
        let permit = self.explain_permit(pool_id).await?;
        let (counts, considered) = self
            .store
            .explain_acquire(pool_id, selector, expected_minor, limit, Some(permit))
            .await?;
        let ids: Vec<_> = considered.iter().map(|one| one.account_id.clone()).collect();
        let mut accounts: HashMap<_, _> = self
            .store
            .get_accounts(pool_id, &ids)
            .await?
            .into_iter()
            .map(|account| (account.account_id.clone(), account))
            .collect();
        let considered = considered
            .into_iter()
            .filter_map(|one| Some((accounts.remove(&one.account_id)?, one)))
            .collect();
        Ok(Explained { pool, considered, counts })
    }

    /// Waits a moment for the permit to read the whole pool.
    async fn explain_permit(&self, pool_id: &PoolId) -> Result<OwnedSemaphorePermit, Error> {
        let permits = {
            let mut explaining = self.explaining.lock().unwrap_or_else(PoisonError::into_inner);
            let permits = explaining.entry(pool_id.clone());
            Arc::clone(permits.or_insert_with(|| Arc::new(Semaphore::new(MAX_EXPLAINING))))
        };
        let permit = timeout(EXPLAIN_WAIT, permits.acquire_owned()).await;
        // Never closed.
        permit.ok().and_then(Result::ok).ok_or_else(|| StoreError::Overloaded.into())
    }

    /// Tells those who wait for the pool's accounts that one may be free; `freed` is its position, where it is known.
    pub fn wake(&self, pool_id: &PoolId, freed: Option<Freed>) {
        let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = queues.get(pool_id) {
            queue.freed.note(freed);
        }
    }

    /// Accounts or plans of the pool were changed: those who wait may find one anywhere.
    pub fn changed(&self, pool_id: &PoolId) {
        let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = queues.get(pool_id) {
            queue.freed.anywhere.store(true, Ordering::Relaxed);
            queue.freed.note(None);
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
            queue: WaitQueue::default(),
            cursors: CursorsByCriteria::default(),
            slow: SlowCriteria::default(),
            side: SideStatements::new(Arc::clone(&self.reads)),
            counted_at: None,
            expire_from: None,
            expired: PollWindow::default(),
            promoted_at: None,
            checked_at: None,
            recent: Arc::new(why_none::RecentCounts::new(Arc::clone(&self.reads))),
            closing: self.closing.clone(),
            meter: self.store.overload().meter(Measured::Work),
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
/// could be told, gives it back here: nobody else could.
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
            let freed = give_back(&acquire.store, &lease).await;
            acquire.wake(&lease.pool_id, freed);
        });
    }
}

/// Ends a lease that no caller was told of. Answers the position of its account for the scan cursors.
async fn give_back(store: &Store, lease: &LeaseRef) -> Option<Freed> {
    match store.release(lease).await {
        Ok(LeaseAnswer::Done(account)) => Freed::of(&account),
        Ok(_) => None,
        Err(error) => {
            tracing::warn!(
                pool_id = %lease.pool_id, account_id = %lease.account_id, %error,
                "a lease that nobody took could not be released, and ends by itself"
            );
            None
        }
    }
}

/// A request that has a lease already must ask for the same.
fn check_same_request(command: &AcquireCommand, acquired: &Acquired) -> Result<(), Error> {
    let account = &acquired.account;
    let mut differ = Vec::new();
    if account.lease.as_ref().is_some_and(|lease| lease.holder != command.holder) {
        differ.push("holder");
    }
    let expected_minor = command.expected.map(|money| money.amount_minor);
    // A redemption that was begun since may have brought another amount, or nothing is held any more.
    if account.open_redemption_id.is_none()
        && account.reserved_minor.is_some()
        && account.reserved_minor != expected_minor
    {
        differ.push("selector.expected");
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
    tracing::debug!(
        pool_id = %account.pool_id,
        account_id = %account.account_id,
        original_status = acquired.original_status.as_str(),
        fencing_token = account.token.0,
        holder = %lease.holder,
        lease_ms = u64::try_from(account.lease_remaining().as_millis()).unwrap_or(u64::MAX),
        again = !acquired.fresh,
        "locked"
    );
}
