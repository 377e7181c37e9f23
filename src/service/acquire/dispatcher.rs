//! The dispatcher: the task that hands out a pool's accounts on this server.

use std::{
    collections::{HashMap, HashSet},
    panic::resume_unwind,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use rand::RngExt as _;
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    give_back,
    wait_queue::{MAX_ROWS, Taken, WaitQueue, Waiter},
    why_none::{self, RecentCounts, TimedOut},
};
use crate::{
    admission::{self, Meter, Queue},
    domain::{
        account::Refusal,
        choice::Criteria,
        id::PoolId,
        lease::{LeaseLoss, LeaseRef},
        pool::PoolTerms,
        principal::RequestKey,
    },
    failpoints::{self, Guard},
    service::{Error, sweep::log_expired},
    store::{
        Store, StoreError,
        acquire::{Acquired, Claim, Claimed},
        ready_set::{Chosen, Ready},
    },
    telemetry::WaitingGauge,
};

/// How often it is read what others changed, while accounts are asked for. Of each time, a random part is left out,
/// so that servers do not ask at the same moment.
const POLL: Duration = Duration::from_millis(200);
/// For how long the last request counts as asking.
const IN_USE: Duration = Duration::from_secs(5);
/// How often it is read while nobody asks.
const IDLE_POLL: Duration = Duration::from_secs(15);
/// How often all pools of a server together are read while nobody waits for their accounts, in a second. With more pools
/// each is read less often, and the next acquisition may have to wait for a read.
const IDLE_POLLS: f64 = 200.0;
/// The most callers that may wait for one pool's accounts. One more is refused as overload.
pub(super) const MAX_WAITING: usize = 16_384;
/// The most requests for which accounts are claimed at a time.
const MAX_CLAIMED: usize = 2 * MAX_ROWS;
/// How often it is read for somebody whose time is over whether the request has a lease already.
const MAX_LOOKUPS: u8 = 3;
/// A pool of so many accounts is quick to read again, and is given up early.
const SMALL_POOL: usize = 1_000;
/// The least time between two tries to end leases, after one that ended none.
const EXPIRE_AT_MOST_EVERY: Duration = Duration::from_millis(100);
/// How long those who find no database wait for one, at the least: as long as callers of the store's lanes. Their
/// own time to wait for an account may be shorter.
const PATIENCE: Duration = Duration::from_secs(5);

/// Claims that have ended.
struct Concluded {
    requests: HashSet<RequestKey>,
    result: Result<Claimed, StoreError>,
}

/// See [the module](self).
pub(super) struct Dispatcher {
    store: Store,
    ready: Ready,
    pool_id: PoolId,
    arrivals: mpsc::Receiver<Box<Waiter>>,
    /// Somebody is left for whom there was no account.
    is_short: Arc<AtomicBool>,
    queue: WaitQueue,
    /// When it was last read what others changed.
    followed_at: Option<Instant>,
    /// When somebody last asked.
    used_at: Instant,
    /// There may be more to do now.
    again: bool,
    /// Leases that are being written, and for how many requests.
    ///
    /// Each in a task of its own: they go on while this one waits for a statement. What would not go on keeps a
    /// connection, and all may be kept so.
    claiming: JoinSet<Concluded>,
    claimed: usize,
    /// When the next try to end leases may be.
    expire_from: Option<Instant>,
    /// The last explanations, for others who ask the same.
    recent: Arc<RecentCounts>,
    closing: CancellationToken,
    /// One for each dispatcher of the server, this one too.
    beside: Arc<()>,
    /// How long new waiters wait until they are first tried.
    meter: Meter,
    /// How many wait, for operators.
    waiting_gauge: WaitingGauge,
    has_left: bool,
}

impl Dispatcher {
    pub(super) fn new(
        store: Store,
        pool_id: PoolId,
        arrivals: mpsc::Receiver<Box<Waiter>>,
        is_short: Arc<AtomicBool>,
        closing: CancellationToken,
        beside: Arc<()>,
    ) -> Self {
        Self {
            ready: store.ready(&pool_id),
            meter: store.overload().meter(Queue::Work),
            waiting_gauge: WaitingGauge::new(pool_id.as_str()),
            has_left: false,
            store,
            pool_id,
            arrivals,
            is_short,
            queue: WaitQueue::default(),
            followed_at: None,
            used_at: Instant::now(),
            again: false,
            claiming: JoinSet::new(),
            claimed: 0,
            expire_from: None,
            recent: Arc::default(),
            closing,
            beside,
        }
    }

    /// Hands out accounts until the server stops, or until nobody has asked for long. Answers those who came as it
    /// ended: another serves them.
    pub(super) async fn run(mut self) -> Vec<Box<Waiter>> {
        while !self.has_left && self.gather().await {
            // One that waits has no room for what it does: there may be thousands.
            let served = match self.queue.is_empty() {
                true => Box::pin(self.follow_idly()).await,
                false => Box::pin(self.serve()).await,
            };
            if let Err(error) = served {
                self.failed(error);
            }
            self.waiting_gauge.set(self.queue.len());
            let is_left = |waiter: &Waiter| waiter.tried && !waiter.is_claimed;
            self.is_short.store(self.queue.iter().any(is_left), Ordering::Relaxed);
        }
        self.close().await
    }

    /// Waits until there is something to do: somebody arrives, an account may be free, or somebody's
    /// time is over. False when the server is closing.
    async fn gather(&mut self) -> bool {
        let next = self.next();
        let is_waiting = !self.queue.is_empty();
        if !std::mem::take(&mut self.again) {
            tokio::select! {
                () = self.closing.cancelled() => return false,
                arrived = self.arrivals.recv(), if self.queue.len() < MAX_WAITING => match arrived {
                    Some(waiter) => self.queue.push(*waiter),
                    None => return false,
                },
                Some(ended) = self.claiming.join_next() => self.end_claims(concluded(ended)),
                () = self.ready.freed(), if is_waiting => {}
                () = sleep_until(next) => {}
            }
        }
        while let Some(ended) = self.claiming.try_join_next() {
            self.end_claims(concluded(ended));
        }
        while self.queue.len() < MAX_WAITING
            && let Ok(waiter) = self.arrivals.try_recv()
        {
            self.queue.push(*waiter);
        }
        for _ in 0..self.queue.drop_gone() {
            admission::note_dropped("acquire");
        }
        if !self.queue.is_empty() {
            self.used_at = Instant::now();
        }
        !self.closing.is_cancelled()
    }

    fn end_claims(&mut self, concluded: Concluded) {
        if let Err(error) = self.conclude(concluded) {
            self.failed(error);
        }
    }

    /// When something is to be done although nobody arrives and nothing becomes free.
    fn next(&self) -> Instant {
        let now = Instant::now();
        let pause = POLL.mul_f64(rand::rng().random_range(0.5..1.0));
        if self.queue.is_empty() {
            let pause = if self.used_at.elapsed() < IN_USE { pause } else { IDLE_POLL };
            let dispatchers = u32::try_from(Arc::strong_count(&self.beside)).unwrap_or(u32::MAX);
            let share = Duration::from_secs_f64(f64::from(dispatchers) / IDLE_POLLS);
            let poll = self.followed_at.map_or(now + IDLE_POLL, |at| at + pause.max(share));
            // While a lease is being written it does not leave.
            return if self.claiming.is_empty() { poll.min(self.leave_at()) } else { poll };
        }
        let until = now + self.ready.unchanged_for().map_or(pause, |time| time.min(pause));
        // Those whose time is over already wait for a database alone, and are tried at the next poll.
        let ends = self.queue.iter().map(|waiter| waiter.until).filter(|until| *until > now);
        ends.min().map_or(until, |end| end.min(until))
    }

    /// When the pool's accounts are given up, and this ends, where nobody asks until then.
    fn leave_at(&self) -> Instant {
        let limits = self.store.overload().limits();
        let is_small = self.ready.accounts() <= SMALL_POOL;
        self.used_at + if is_small { limits.idle_small_pool() } else { limits.idle_pool }
    }

    /// Reads what others changed although nobody waits, so that it need not be read first when somebody comes.
    async fn follow_idly(&mut self) -> Result<(), StoreError> {
        if Instant::now() < self.leave_at() || !self.claiming.is_empty() {
            return self.follow().await;
        }
        self.ready.leave().await;
        self.has_left = true;
        Ok(())
    }

    async fn follow(&mut self) -> Result<(), StoreError> {
        let begun = Instant::now();
        self.followed_at = None;
        if self.ready.follow().await? {
            self.followed_at = Some(begun);
        } else {
            self.refuse_all(&Error::PoolNotFound(self.pool_id.clone()));
        }
        Ok(())
    }

    /// Serves those who wait, as many as may be claimed at once, and tells those who wait in vain.
    async fn serve(&mut self) -> Result<(), StoreError> {
        let is_due = self.followed_at.is_none_or(|at| at.elapsed() >= POLL);
        if is_due || !self.ready.is_whole() || self.ready.terms().is_none() {
            self.follow().await?;
        }
        let Some(terms) = self.ready.terms() else { return Ok(()) };
        self.end_leases().await;
        if self.pass(&terms) {
            self.again = true;
            return Ok(());
        }
        // Not everybody could be tried: the next are when something that is being leased is.
        if self.claimed >= MAX_CLAIMED {
            return Ok(());
        }
        // Those who are left wait for an account, which is no work.
        let left = self.queue.iter().filter(|waiter| !waiter.is_claimed);
        left.for_each(|waiter| waiter.caller.step_aside());
        if self.is_to_tell(&terms) {
            self.again = true;
            return self.follow().await;
        }
        self.refuse_missing(&terms);
        self.dismiss(&terms);
        Ok(())
    }

    /// Whether somebody is to be told that there is nothing, and it is not known since it came what others changed.
    fn is_to_tell(&self, terms: &PoolTerms) -> bool {
        let now = Instant::now();
        self.queue.iter().filter(|waiter| !waiter.is_claimed).any(|waiter| {
            let is_over = waiter.until <= now;
            let is_told = is_over || self.missing(waiter, terms).is_some();
            is_told && self.followed_at.is_none_or(|at| at < waiter.since)
        })
    }

    fn missing(&self, waiter: &Waiter, terms: &PoolTerms) -> Option<Error> {
        why_none::missing(&self.ready, terms, &waiter.criteria.selector)
    }

    /// Chooses accounts for those who wait, and begins to lease them. Others are chosen meanwhile for those who come.
    /// False when there was nothing to do.
    fn pass(&mut self, terms: &PoolTerms) -> bool {
        let room = MAX_CLAIMED.saturating_sub(self.claimed);
        if room == 0 {
            return false;
        }
        let now = Instant::now();
        let may_ask = |waiter: &&Waiter| {
            !waiter.is_claimed && (waiter.lookups < MAX_LOOKUPS || waiter.until > now)
        };
        let asked = self.queue.iter().filter(may_ask).map(|waiter| &waiter.wanted.request);
        let again = self.ready.with_leases(asked);
        let claims: Vec<_> = {
            let mut waiters = self.queue.servable();
            waiters.retain(|waiter| !again.contains(&waiter.wanted.request));
            let asked = waiters.iter().map(|waiter| &waiter.criteria);
            let chosen = self.ready.choose(asked, terms, room.min(MAX_ROWS));
            let claim = |chosen: Chosen| {
                let waiter = waiters.get(chosen.number)?;
                let criteria = Arc::clone(&waiter.criteria);
                Some(Claim { wanted: waiter.wanted.clone(), criteria, account: chosen.account })
            };
            chosen.into_iter().filter_map(claim).collect()
        };
        let is_full = claims.len() >= room.min(MAX_ROWS);
        let mut requests: HashSet<_> =
            claims.iter().map(|claim| claim.wanted.request.clone()).collect();
        requests.extend(again.iter().cloned());
        if let Some(arrived) = self.queue.try_now(&requests, &again, !is_full) {
            self.meter.begins(arrived);
        }
        if !is_full {
            self.refuse_cards();
        }
        if requests.is_empty() {
            return false;
        }
        self.claimed += requests.len();
        let (store, ready) = (self.store.clone(), self.ready.clone());
        self.claiming.spawn(async move {
            let accounts: Vec<_> =
                claims.iter().map(|claim| claim.account.account_id.clone()).collect();
            let result = claim(&store, ready.pool_id(), claims, &again).await;
            ready.conclude(&accounts);
            Concluded { requests, result }
        });
        true
    }

    /// Hands out what was leased, and refuses those who could not be served. Those who lost an account to somebody else
    /// are tried again.
    fn conclude(&mut self, Concluded { requests, result }: Concluded) -> Result<(), StoreError> {
        self.meter.ends();
        self.claimed = self.claimed.saturating_sub(requests.len());
        self.queue.claimed(&requests);
        self.again = true;
        let claimed = result?;
        self.hand_out(claimed.leased);
        let mut begun = claimed.begun;
        for (waiter, begun) in self.queue.take(|waiter| begun.remove(&waiter.wanted.request)) {
            self.queue.given(&waiter.wanted.holder);
            // Who asks with a card waits for the answer in any case.
            let _ = waiter.reply.send(Ok(Taken::Begun(Box::new(begun))));
        }
        if let Some(refusal) = claimed.closed {
            self.refuse_all(&match refusal {
                Refusal::PoolPaused => Error::PoolPaused(self.pool_id.clone()),
                _ => Error::PoolDraining(self.pool_id.clone()),
            });
        }
        let mut failed = claimed.failed;
        let unavailable = failed.values().find(|error| matches!(error, StoreError::Unavailable(_)));
        if let Some(error) = unavailable.cloned() {
            return Err(error);
        }
        for (waiter, error) in self.queue.take(|waiter| failed.remove(&waiter.wanted.request)) {
            let _ = waiter.reply.send(Err(error.into()));
        }
        Ok(())
    }

    /// Gives each lease to those who wait for it: all have sent the same request. It is new for the first of them.
    fn hand_out(&mut self, found: HashMap<RequestKey, Acquired>) {
        let mut taken = HashSet::new();
        for (waiter, mut acquired) in
            self.queue.take(|waiter| found.get(&waiter.wanted.request).cloned())
        {
            let lease = self.lease_of(&acquired);
            let over = acquired.account.lease_remaining().is_zero()
                && failpoints::holds(Guard::HandedOutAlive);
            acquired.fresh &= !taken.contains(&waiter.wanted.request);
            if acquired.account.lease.as_ref().is_some_and(|lease| lease.release_requested) {
                let loss = LeaseLoss::Released;
                let _ = waiter.reply.send(Err(Error::LeaseLost { lease, loss }));
            } else if over && acquired.account.open_redemption_id.is_some() {
                let loss = LeaseLoss::Expired;
                let _ = waiter.reply.send(Err(Error::LeaseLost { lease, loss }));
            } else if over {
                // The request's last lease has run out and is not ended yet: it is ended first. Where it just could
                // not be, that is tried again later.
                self.again = self.expire_from.is_none_or(|from| from <= Instant::now());
                self.queue.put_back(waiter);
            } else {
                if acquired.fresh {
                    self.queue.given(&waiter.wanted.holder);
                }
                if waiter.reply.send(Ok(Taken::Leased(Box::new(acquired)))).is_ok() {
                    taken.insert(waiter.wanted.request);
                }
            }
        }
        // Those who asked for these have left.
        let left =
            found.iter().filter(|(request, acquired)| acquired.fresh && !taken.contains(*request));
        let unwanted: Vec<_> = left
            .map(|(request, acquired)| (self.lease_of(acquired), request.principal.clone()))
            .collect();
        if !unwanted.is_empty() {
            // Under load they are many, and those who wait for an account are not to wait for each of these.
            let store = self.store.clone();
            tokio::spawn(async move {
                join_all(
                    unwanted.iter().map(|(lease, owner)| give_back(&store, lease, owner.clone())),
                )
                .await;
            });
        }
    }

    fn lease_of(&self, acquired: &Acquired) -> LeaseRef {
        LeaseRef {
            pool_id: self.pool_id.clone(),
            account_id: acquired.account.account_id.clone(),
            token: acquired.account.token,
        }
    }

    /// Ends leases whose time has passed.
    async fn end_leases(&mut self) {
        if self.expire_from.is_some_and(|from| Instant::now() < from) {
            return;
        }
        self.expire_from = None;
        let ended = self.ready.expire(&self.store, MAX_ROWS, "acquirer").await;
        match ended {
            Ok(Some(ended)) if ended.is_empty() => {
                self.expire_from = Some(Instant::now() + EXPIRE_AT_MOST_EVERY);
            }
            Ok(ended) => ended.iter().flatten().for_each(log_expired),
            Err(error) => {
                self.expire_from = Some(Instant::now() + EXPIRE_AT_MOST_EVERY);
                tracing::warn!(pool_id = %self.pool_id, %error, "expired leases could not be ended");
            }
        }
    }

    /// Tells those who ask with a card, and for whom no account was chosen: they do not wait for one.
    fn refuse_cards(&mut self) {
        let is_left = |waiter: &Waiter| waiter.wanted.begins.is_some() && !waiter.is_claimed;
        for (waiter, ()) in self.queue.take(|waiter| is_left(waiter).then_some(())) {
            let told = if waiter.was_claimed { Taken::Unknown } else { Taken::NotNow };
            let _ = waiter.reply.send(Ok(told));
        }
    }

    async fn close(mut self) -> Vec<Box<Waiter>> {
        self.arrivals.close();
        // What is being written with a card is somebody's to send.
        while let Some(ended) = self.claiming.join_next().await {
            self.end_claims(concluded(ended));
        }
        let mut late = Vec::new();
        while let Some(waiter) = self.arrivals.recv().await {
            late.push(waiter);
        }
        if self.has_left && !self.closing.is_cancelled() {
            return late;
        }
        late.into_iter().for_each(|waiter| self.queue.push(*waiter));
        self.refuse_all(&Error::ShuttingDown);
        Vec::new()
    }

    /// Not those for whom a redemption is being written: they are told what became of it.
    fn refuse_all(&mut self, error: &Error) {
        for (waiter, ()) in self.queue.take(|waiter| (!waiter.is_being_begun()).then_some(())) {
            let _ = waiter.reply.send(Err(error.clone()));
        }
    }

    /// Refuses those who wait for something that is not there, or that is paused: waiting is no use. Not those for
    /// whom an account is being leased: they have it, or come back.
    fn refuse_missing(&mut self, terms: &PoolTerms) {
        let ready = self.ready.clone();
        let missing = |waiter: &Waiter| match waiter.is_claimed {
            true => None,
            false => why_none::missing(&ready, terms, &waiter.criteria.selector),
        };
        for (waiter, error) in self.queue.take(missing) {
            let _ = waiter.reply.send(Err(error));
        }
    }

    /// Those who have waited long enough for a database are told that there is none; the others go on
    /// waiting. What was asked for them may have been done, and is found when they are tried again.
    fn failed(&mut self, error: StoreError) {
        let StoreError::Unavailable(_) = error else {
            return self.refuse_all(&error.into());
        };
        let now = Instant::now();
        let done = self.queue.take(|waiter| {
            // Once more in any case: one try may have taken all the time, without an answer.
            let over = waiter.until.max(waiter.since + PATIENCE) <= now;
            (waiter.unanswered && over).then_some(())
        });
        for (waiter, ()) in done {
            let _ = waiter.reply.send(Err(error.clone().into()));
        }
        self.queue.iter_mut().for_each(|waiter| waiter.unanswered = true);
    }

    /// Tells those whose time is over why they got nothing, and what their position was.
    fn dismiss(&mut self, terms: &Arc<PoolTerms>) {
        let now = Instant::now();
        let is_over = |waiter: &Waiter| waiter.until <= now && !waiter.is_claimed;
        if !self.queue.iter().any(is_over) {
            return;
        }
        let waiting = self.queue.len();
        let positions = self.queue.positions();
        let mut groups: HashMap<Arc<Criteria>, Vec<TimedOut>> = HashMap::new();
        for (waiter, ()) in self.queue.take(|waiter| is_over(waiter).then_some(())) {
            let position = positions.get(&waiter.wanted.request).copied().unwrap_or(waiting);
            let group = groups.entry(Arc::clone(&waiter.criteria)).or_default();
            group.push(TimedOut { waiter, position, waiting });
        }
        for (criteria, timed_out) in groups {
            let (ready, recent) = (self.ready.clone(), Arc::clone(&self.recent));
            let terms = Arc::clone(terms);
            tokio::spawn(async move {
                why_none::explain(&ready, terms, &criteria, &recent, timed_out).await;
            });
        }
    }
}

/// What a task of claims brought. Its panic is the dispatcher's.
fn concluded(ended: Result<Concluded, JoinError>) -> Concluded {
    ended.unwrap_or_else(|error| resume_unwind(error.into_panic()))
}

/// Leases what was chosen. Requests that have leases already get these.
async fn claim(
    store: &Store,
    pool_id: &PoolId,
    claims: Vec<Claim>,
    again: &[RequestKey],
) -> Result<Claimed, StoreError> {
    let mut claimed = match claims.is_empty() {
        true => Claimed::default(),
        false => store.claim(pool_id, claims).await?,
    };
    if !again.is_empty() {
        match store.leases_of(pool_id, again).await {
            Ok(leased) => claimed.leased.extend(leased),
            // What the others got is theirs in any case.
            Err(error) => {
                let failed = again.iter().map(|request| (request.clone(), error.clone()));
                claimed.failed.extend(failed);
            }
        }
    }
    Ok(claimed)
}
