//! `AcquireAccount`: who gets which free account, and who waits.
//!
//! Each pool has one dispatcher, a task that holds the queue of those who want an account, first come, first
//! served. It chooses from the pool's ready set, for each in their order the best account that fits, and leases what
//! it chose by one statement for all. Those who find nothing stay. They are tried again when an account becomes free,
//! here or on another server, or its time comes. One that nothing can satisfy does not hold up those behind it.

mod dispatcher;
mod wait_queue;
mod why_none;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use time::OffsetDateTime;
use tokio::{
    sync::{
        mpsc::{self, error::TrySendError},
        oneshot,
    },
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use self::{
    dispatcher::{Dispatcher, MAX_WAITING},
    wait_queue::{MAX_ROWS, Taken, Waiter},
};
use super::{
    error::{Error, Violation, all},
    pools::{Pools, check_currencies, lease_duration},
    providers::Providers,
};
use crate::{
    admission::{Caller, FairPermit, FairPermits, origin},
    domain::{
        choice::{Considered, Counts, Criteria},
        id::{Holder, PoolId, RequestId},
        lease::LeaseRef,
        money::Money,
        principal::{Authority, Principal, RequestKey},
        provider::ProviderStatus,
        redemption::{Begun, CardToBegin},
        selector::Selector,
    },
    store::{
        Store, StoreError,
        acquire::{Acquired, Wanted},
        pool::Pool,
        ready_set::{Asked, Explanation, Ready},
    },
};

/// How long those may take to be told who wait when the server stops.
const CLOSING_GRACE: Duration = Duration::from_secs(1);
/// The longest that `not_before` of an acquisition may be from now.
const MAX_AHEAD: Duration = Duration::from_secs(10 * 60);
/// How many may ask at once on this server what an acquisition would make of one pool's accounts.
const MAX_EXPLAINING: usize = 2;
/// The same for all pools: each keeps a part of a core busy.
const MAX_EXPLAINING_ANY: usize = 4;
/// How long one more waits before it is refused.
const EXPLAIN_WAIT: Duration = Duration::from_secs(1);

/// A lease that is asked for.
#[derive(Clone, Debug)]
pub struct AcquireCommand {
    /// The caller's name for the request.
    pub request_id: RequestId,
    /// Who asks, as authentication found it.
    pub principal: Principal,
    /// Of this pool.
    pub pool_id: PoolId,
    /// Who asks, by its own word.
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
    /// A higher one is served first.
    pub priority: u8,
    /// No account is locked before this time, from which `wait` counts.
    pub not_before: Option<OffsetDateTime>,
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

/// What became of a card that was to be begun where an account is free.
#[derive(Debug)]
pub enum AtOnce {
    /// The store's answer.
    Begun(Box<Begun>),
    /// No account is free now.
    NotNow,
    /// It may have been begun, or not. The error, where there was one.
    Unknown(Option<Error>),
    /// Nothing was begun.
    Refused(Error),
}

/// What would become of an acquisition.
#[derive(Clone, Debug)]
pub struct Explained {
    /// The pool.
    pub pool: Pool,
    /// Accounts with what the choice makes of them: those that would be picked come first, in order.
    pub considered: Vec<Considered>,
    /// How many accounts there are of each choice.
    pub counts: Counts,
    /// What holds back the calls to the pool's provider.
    pub provider: Option<ProviderStatus>,
}

/// The queues of the pools that somebody wants accounts of, each with its dispatcher.
struct Queues {
    /// Who waits is boxed: a queue has room for 32 of them from the start.
    by_pool: Mutex<HashMap<PoolId, PoolQueue>>,
    /// One for each dispatcher that runs.
    dispatchers: Arc<()>,
    store: Store,
    closing: CancellationToken,
}

/// The queue of one pool.
#[derive(Clone)]
struct PoolQueue {
    waiters: mpsc::Sender<Box<Waiter>>,
    /// Somebody was left for whom there was no account.
    is_short: Arc<AtomicBool>,
}

/// The acquiring of accounts. Cheap to clone.
#[derive(Clone)]
pub struct Acquire {
    store: Store,
    pools: Pools,
    providers: Providers,
    queues: Arc<Queues>,
    /// The permits to go through a whole pool, fair among those who ask; by pool.
    explaining: Arc<Mutex<HashMap<PoolId, FairPermits>>>,
    /// The same for all pools.
    explaining_any: FairPermits,
    closing: CancellationToken,
}

impl Acquire {
    /// Acquires from `store`. When `closing` is cancelled, those who wait are told so.
    pub fn new(
        store: Store,
        pools: Pools,
        providers: Providers,
        closing: CancellationToken,
    ) -> Self {
        let queues = Queues {
            by_pool: Mutex::default(),
            dispatchers: Arc::default(),
            store: store.clone(),
            closing: closing.clone(),
        };
        let (queues, explaining) = (Arc::new(queues), Arc::default());
        let explaining_any = FairPermits::for_work(MAX_EXPLAINING_ANY);
        Self { store, pools, providers, queues, explaining, explaining_any, closing }
    }

    /// Leases an account, waiting for one up to `command.wait`.
    pub async fn acquire(&self, command: AcquireCommand) -> Result<Acquired, Error> {
        if let Some(time) = command.not_before {
            let pause = self.store.time_until(time).await?;
            if pause > MAX_AHEAD {
                return Err(too_far_ahead("not_before", MAX_AHEAD));
            }
            command.caller.step_aside();
            let paused = self.closing.run_until_cancelled(sleep(pause)).await;
            paused.ok_or(Error::ShuttingDown)?;
        }
        let (answer, _waits) = Box::pin(self.ask(&command, None)).await?;
        let mut answer =
            Answer { answer, store: self.store.clone(), pool_id: command.pool_id.clone() };
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
        let acquired = match answered.unwrap_or_else(|_| Err(unanswered(&command)))? {
            Taken::Leased(acquired) => *acquired,
            Taken::Begun(_) | Taken::NotNow | Taken::Unknown => {
                return Err(Error::Internal("a lease was answered with a redemption"));
            }
        };
        if !acquired.fresh {
            check_same_request(&command, &acquired)?;
        }
        log_locked(&acquired);
        Ok(acquired)
    }

    /// Whether somebody waits for an account of the pool on this server, so that one more would have to wait, too.
    pub fn is_short(&self, pool_id: &PoolId) -> bool {
        let by_pool = self.queues.by_pool();
        by_pool.get(pool_id).is_some_and(|queue| queue.is_short.load(Ordering::Relaxed))
    }

    /// Leases an account and begins the card's redemption in one change, where an account is free now. Waits for the answer
    /// when the server stops, too: what was begun is the caller's to send.
    pub async fn begin_at_once(&self, command: AcquireCommand, card: CardToBegin) -> AtOnce {
        let (answer, _waits) = match Box::pin(self.ask(&command, Some(card))).await {
            Ok(asked) => asked,
            Err(Error::Overloaded) => return AtOnce::NotNow,
            Err(error) => return AtOnce::Refused(error),
        };
        match answer.await {
            Ok(Ok(Taken::Begun(begun))) => AtOnce::Begun(begun),
            Ok(Ok(Taken::NotNow)) => AtOnce::NotNow,
            Ok(Ok(Taken::Leased(_) | Taken::Unknown)) => AtOnce::Unknown(None),
            Ok(Err(error)) => AtOnce::Unknown(Some(error)),
            Err(_) => AtOnce::Unknown(Some(unanswered(&command))),
        }
    }

    /// Puts a request in the pool's queue. The answer comes through the channel; what is counted of the request is until
    /// the other is dropped.
    async fn ask(
        &self,
        command: &AcquireCommand,
        card: Option<CardToBegin>,
    ) -> Result<(oneshot::Receiver<Result<Taken, Error>>, impl Sized + use<>), Error> {
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
        // A card that is to be begun at once has its permit.
        if card.is_none() {
            self.providers.check_available(&pool)?;
        }
        let bytes = command.selector.bytes();
        let origin = origin::current_name();
        let waits = self.store.overload().waiting_bytes();
        let waits =
            waits.hold(command.pool_id.as_str(), &origin, bytes).ok_or(StoreError::Overloaded)?;
        let (reply, answer) = oneshot::channel();
        let now = Instant::now();
        let waiter = Box::new(Waiter {
            wanted: Wanted {
                request: RequestKey::new(command.principal.clone(), command.request_id.clone()),
                holder: command.holder.clone(),
                ttl,
                begins: card.map(Arc::new),
            },
            criteria: Arc::new(Criteria {
                selector: Arc::new(command.selector.clone()),
                expected_minor: command.expected.map(|money| money.amount_minor),
            }),
            share_percent: pool.holder_share_percent,
            priority: command.priority,
            since: now,
            until: now + command.wait,
            caller: command.caller.clone(),
            tried: false,
            is_claimed: false,
            was_claimed: false,
            lookups: 0,
            unanswered: false,
            reply,
        });
        self.queue_up(waiter, &command.pool_id).await?;
        Ok((answer, waits))
    }

    /// Puts somebody at the end of the pool's queue. Where that is full a call is refused; the item of a
    /// stream waits for room, for as long as it would for an account. An item behind many who have just come
    /// keeps nobody of another pool from work meanwhile.
    async fn queue_up(&self, waiter: Box<Waiter>, pool_id: &PoolId) -> Result<(), Error> {
        let until = waiter.until;
        let is_item = waiter.caller.is_item();
        let mut waiter = waiter;
        loop {
            let waiters = self.queues.of(pool_id).waiters;
            if is_item && waiters.max_capacity() - waiters.capacity() >= MAX_ROWS {
                waiter.caller.step_aside();
            }
            waiter = match waiters.try_send(waiter) {
                Ok(()) => return Ok(()),
                Err(_) if self.closing.is_cancelled() => return Err(Error::ShuttingDown),
                // The dispatcher has ended, because nobody asked for long: there is another.
                Err(TrySendError::Closed(waiter)) => waiter,
                Err(TrySendError::Full(_)) if !is_item => return Err(StoreError::Overloaded.into()),
                Err(TrySendError::Full(waiter)) => {
                    let room = timeout_at(until, waiters.reserve()).await;
                    if let Ok(room) = room.map_err(|_| StoreError::Overloaded)? {
                        room.send(waiter);
                        return Ok(());
                    }
                    waiter
                }
            };
        }
    }

    /// What an acquisition would make of the pool's accounts now, without locking any. Answers the first `limit`
    /// of them, and how many there are of each choice. It goes through the whole pool, so few may ask at a time.
    pub async fn explain(
        &self,
        pool_id: &PoolId,
        selector: &Selector,
        amounts: ExplainAmounts,
        limit: usize,
    ) -> Result<Explained, Error> {
        let explain = self.explain_now(pool_id, selector, amounts, limit);
        self.closing.run_until_cancelled(explain).await.unwrap_or(Err(Error::ShuttingDown))
    }

    async fn explain_now(
        &self,
        pool_id: &PoolId,
        selector: &Selector,
        amounts: ExplainAmounts,
        limit: usize,
    ) -> Result<Explained, Error> {
        let pool = self.pools.get(pool_id).await?;
        check_currencies(
            &pool,
            [
                ("selector.min_headroom", amounts.min_headroom),
                ("selector.expected", amounts.expected),
            ],
        )?;
        let ready = self.store.ready(pool_id);
        let asked = Asked {
            criteria: Criteria {
                selector: Arc::new(selector.clone()),
                expected_minor: amounts.expected.map(|money| money.amount_minor),
            },
            limit,
        };
        let (counts, considered) = match self.explain_memory(&ready, &asked).await? {
            Some(explanation) => explanation,
            None => self.explain_rows(&ready, asked).await?,
        };
        let provider = self.providers.status(&pool).await?;
        Ok(Explained { pool, considered, counts, provider })
    }

    /// From the accounts in memory; `None` where they are not there. Nobody loads them for this alone.
    async fn explain_memory(
        &self,
        ready: &Ready,
        asked: &Asked,
    ) -> Result<Option<Explanation>, Error> {
        if !ready.is_whole() {
            return Ok(None);
        }
        let pool_id = ready.pool_id();
        let permit = self.explain_permit(pool_id).await?;
        // Goes on when the caller leaves, with the permit: what is read then is read for the next caller, too.
        let following = ready.clone();
        let follow = async move { (following.follow_whole().await, permit) };
        let followed = tokio::spawn(origin::scope(origin::current(), follow)).await;
        let (followed, permit) = followed.map_err(|_| StoreError::Overloaded)?;
        let not_found = || Error::PoolNotFound(pool_id.clone());
        match followed? {
            None => return Ok(None),
            Some(false) => return Err(not_found()),
            Some(true) => {}
        }
        let terms = ready.terms().ok_or_else(not_found)?;
        if let Some(error) = why_none::missing(ready, &terms, &asked.criteria.selector)
            && !matches!(error, Error::PoolPaused(_) | Error::PoolDraining(_))
        {
            return Err(error);
        }
        Ok(ready.explain(asked.clone(), terms, permit).await)
    }

    /// From the accounts in the database, of which none is kept. What was read for one is told to all who ask the same.
    async fn explain_rows(&self, ready: &Ready, asked: Asked) -> Result<Explanation, Error> {
        if let Some(explanation) = ready.explained(&asked).await? {
            return Ok(explanation);
        }
        let pool_id = ready.pool_id();
        let permit = match self.explain_permit(pool_id).await {
            Ok(permit) => permit,
            Err(error) => return ready.explained_lately(&asked).ok_or(error),
        };
        let terms = ready.read_terms().await?;
        let terms = terms.ok_or_else(|| Error::PoolNotFound(pool_id.clone()))?;
        let selector = &asked.criteria.selector;
        if let Some(error) = why_none::missing_plan(pool_id, &terms, selector) {
            return Err(error);
        }
        if let Some(account_id) = &selector.account_id {
            match self.store.get_account(pool_id, account_id).await {
                Ok(Some(_)) => {}
                Ok(None) | Err(StoreError::Unreadable(_)) => {
                    return Err(Error::AccountNotFound(pool_id.clone(), account_id.clone()));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(ready.read_explanation(asked, terms, permit).await?)
    }

    /// Waits a moment for the permits to go through the whole pool.
    async fn explain_permit(&self, pool_id: &PoolId) -> Result<[FairPermit; 2], Error> {
        let of_pool = {
            let mut explaining = self.explaining.lock().unwrap_or_else(PoisonError::into_inner);
            explaining.retain(|id, permits| id == pool_id || !permits.is_idle());
            let permits = explaining.entry(pool_id.clone());
            permits.or_insert_with(|| FairPermits::for_work(MAX_EXPLAINING)).clone()
        };
        let permits = async {
            let permit = of_pool.acquire(&origin::current_name()).await;
            [permit, self.explaining_any.acquire(pool_id.as_str()).await]
        };
        let permits = timeout(EXPLAIN_WAIT, permits).await;
        permits.map_err(|_| StoreError::Overloaded.into())
    }
}

impl Queues {
    fn of(self: &Arc<Self>, pool_id: &PoolId) -> PoolQueue {
        let mut by_pool = self.by_pool();
        if let Some(queue) = by_pool.get(pool_id)
            && !queue.waiters.is_closed()
        {
            return queue.clone();
        }
        let (waiters, arrivals) = mpsc::channel(MAX_WAITING);
        let queue = PoolQueue { waiters, is_short: Arc::default() };
        let (closing, beside) = (self.closing.clone(), Arc::clone(&self.dispatchers));
        let is_short = Arc::clone(&queue.is_short);
        let dispatcher = Dispatcher::new(
            self.store.clone(),
            pool_id.clone(),
            arrivals,
            is_short,
            closing,
            beside,
        );
        let (queues, of_pool) = (Arc::downgrade(self), pool_id.clone());
        tokio::spawn(async move {
            let late = dispatcher.run().await;
            let Some(queues) = queues.upgrade() else { return };
            queues.forget(&of_pool);
            for waiter in late {
                // There are fewer of them than the new queue holds.
                let _ = queues.of(&of_pool).waiters.try_send(waiter);
            }
        });
        by_pool.insert(pool_id.clone(), queue.clone());
        queue
    }

    /// Forgets the queue of a pool whose dispatcher has ended, if there is no other by now.
    fn forget(&self, pool_id: &PoolId) {
        let mut by_pool = self.by_pool();
        if by_pool.get(pool_id).is_some_and(|queue| queue.waiters.is_closed()) {
            by_pool.remove(pool_id);
        }
    }

    fn by_pool(&self) -> MutexGuard<'_, HashMap<PoolId, PoolQueue>> {
        self.by_pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a caller waits for. A caller who goes away after the lease was handed to it, and before it
/// could be told, gives it back here: nobody else could.
struct Answer {
    answer: oneshot::Receiver<Result<Taken, Error>>,
    store: Store,
    pool_id: PoolId,
}

impl Drop for Answer {
    fn drop(&mut self) {
        let Ok(Ok(Taken::Leased(acquired))) = self.answer.try_recv() else { return };
        if !acquired.fresh {
            return;
        }
        let lease = LeaseRef {
            pool_id: self.pool_id.clone(),
            account_id: acquired.account.account_id.clone(),
            token: acquired.account.token,
        };
        let Some(owner) = acquired.principal() else { return };
        let store = self.store.clone();
        tokio::spawn(async move { give_back(&store, &lease, owner).await });
    }
}

/// A time that is too long from now.
pub(super) fn too_far_ahead(field: &'static str, most: Duration) -> Error {
    let most = humantime::format_duration(most);
    let wrong = format!("must be at most {most} from now, by the database's clock");
    Error::Invalid(vec![Violation::new(field, wrong)])
}

/// Nobody is left who would answer; or it was dropped, because nobody waits for the answer.
fn unanswered(command: &AcquireCommand) -> Error {
    match command.caller.is_over() {
        true => StoreError::DeadlinePassed.into(),
        false => Error::ShuttingDown,
    }
}

/// Ends a lease that no caller was told of.
async fn give_back(store: &Store, lease: &LeaseRef, owner: Principal) {
    if let Err(error) = store.release(lease, Authority::of(owner)).await {
        tracing::warn!(
            pool_id = %lease.pool_id, account_id = %lease.account_id, %error,
            "a lease that nobody took could not be released, and ends by itself"
        );
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
        principal = %lease.request.principal,
        lease_ms = u64::try_from(account.lease_remaining().as_millis()).unwrap_or(u64::MAX),
        again = !acquired.fresh,
        "locked"
    );
}
