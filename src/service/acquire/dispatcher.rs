//! The one who hands out a pool's accounts on this server.

mod pass;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use rand::RngExt as _;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    FreedHere,
    beside::Beside,
    give_back,
    slow::SlowCriteria,
    turns::{MAX_ROWS, Turns, Waiter, Wish},
    walks::WalksByWish,
    why::{self, GaveUp, Known},
};
use crate::{
    admission::{self, Meter},
    domain::{
        id::{PoolId, RequestId},
        lease::{LeaseLoss, LeaseRef},
    },
    failpoints::{self, Guard},
    service::{Error, pace::Looks, sweep::log_expired},
    store::{
        Store, StoreError,
        acquire::{Acquired, Selector},
        walks::Freed,
    },
};

/// How often those who wait are tried again when nothing wakes them. Of each, a random part is left
/// out, so that servers do not ask at the same moment.
const POLL: Duration = Duration::from_millis(200);
/// The most callers that may wait for one pool's accounts. One more is refused as overload.
pub(super) const MAX_WAITING: usize = 16_384;
/// The least time between two looks for leases whose time has passed, while somebody waits.
const EXPIRE_AT_MOST_EVERY: Duration = Duration::from_millis(100);
/// The least time between two looks for accounts whose time has come, after somebody was served.
const UNPARK_AT_MOST_EVERY: Duration = Duration::from_millis(100);
/// The least time between two looks whether the pool is open, while somebody waits in vain.
const LOOK_AT_MOST_EVERY: Duration = Duration::from_millis(100);
/// The most accounts that one look unparks: the acquire statement itself sees as many that nobody has.
const UNPARK_AT_ONCE: usize = 1000;
/// How long those who find no database go on waiting for one, at the least, however short their own
/// time to wait for an account is: as long as callers of the store's lanes.
const PATIENCE: Duration = Duration::from_secs(5);
/// How much longer somebody with slow criteria waits, whose time is over, until a statement has tried them once.
const FIRST_ATTEMPT: Duration = Duration::from_secs(30);

/// See [the module](self).
pub(super) struct Dispatcher {
    pub(super) store: Store,
    pub(super) pool_id: PoolId,
    pub(super) arrivals: mpsc::Receiver<Waiter>,
    pub(super) freed: Arc<FreedHere>,
    pub(super) turns: Turns,
    /// How far walks for each wish came.
    pub(super) walks: WalksByWish,
    /// Criteria that are not part of the pass.
    pub(super) slow: SlowCriteria,
    /// Their statements.
    pub(super) beside: Beside,
    /// When the pool's accounts were last counted, up to a few.
    pub(super) counted_at: Option<Instant>,
    /// When leases whose time has passed may be looked for again.
    pub(super) expire_from: Option<Instant>,
    /// How far back.
    pub(super) expired: Looks,
    pub(super) unparked_at: Option<Instant>,
    pub(super) looked_at: Option<Instant>,
    /// Why nothing was to be had, for others who ask the same.
    pub(super) known: Known,
    pub(super) closing: CancellationToken,
    /// How long those who come wait until a statement looks for an account for them.
    pub(super) meter: Meter,
    /// How many wait, for operators.
    pub(super) waiting_gauge: metrics::Gauge,
}

impl Dispatcher {
    pub(super) async fn run(mut self) {
        loop {
            if !self.gather().await {
                return self.close();
            }
            match self.serve().await {
                Ok(()) => {
                    self.check_slow().await;
                    self.refuse_if_closed().await;
                    self.dismiss();
                    let _ = self.unpark().await;
                }
                Err(why) => self.no_database(&why),
            }
            self.waiting_gauge.set(self.turns.len() as f64);
        }
    }

    /// Waits until there is something to do: somebody arrives, an account may be free, or somebody's
    /// time is over. False when the server is closing.
    async fn gather(&mut self) -> bool {
        let now = Instant::now();
        let poll = now + POLL.mul_f64(rand::rng().random_range(0.5..1.0));
        // Those whose time is over already wait for a database alone, and are tried at the next poll.
        let ends = self.turns.iter().map(|waiter| waiter.until).filter(|until| *until > now);
        let next = (!self.turns.is_empty()).then(|| ends.min().map_or(poll, |at| at.min(poll)));
        let idle = async {
            match next {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.closing.cancelled() => return false,
            arrived = self.arrivals.recv(), if self.turns.len() < MAX_WAITING => match arrived {
                Some(waiter) => self.turns.push(waiter),
                None => return false,
            },
            () = self.freed.bell.notified(), if !self.turns.is_empty() => {}
            (wishes, attempted) = self.beside.ended() => {
                self.conclude_beside(wishes, attempted).await;
            }
            () = idle => {}
        }
        while self.turns.len() < MAX_WAITING
            && let Ok(waiter) = self.arrivals.try_recv()
        {
            self.turns.push(waiter);
        }
        for _ in 0..self.turns.drop_gone() {
            admission::note_dropped("acquire");
        }
        true
    }

    fn close(mut self) {
        self.arrivals.close();
        while let Ok(waiter) = self.arrivals.try_recv() {
            self.turns.push(waiter);
        }
        for (waiter, ()) in self.turns.take(|_| Some(())) {
            let _ = waiter.reply.send(Err(Error::ShuttingDown));
        }
    }

    /// Gives each lease to the first who waits for it. Answers who was served.
    async fn hand_out(&mut self, mut found: HashMap<RequestId, Acquired>) -> HashSet<RequestId> {
        let mut given = HashSet::new();
        let mut unwanted = Vec::new();
        for (waiter, acquired) in self.turns.take(|waiter| found.remove(&waiter.wanted.request_id))
        {
            let lease = LeaseRef {
                pool_id: self.pool_id.clone(),
                account_id: acquired.account.account_id.clone(),
                token: acquired.account.token,
            };
            let over = acquired.account.lease_remaining().is_zero()
                && failpoints::holds(Guard::HandedOutAlive);
            if acquired.account.lease.as_ref().is_some_and(|lease| lease.release_requested) {
                let loss = LeaseLoss::Released;
                given.insert(waiter.wanted.request_id);
                let _ = waiter.reply.send(Err(Error::LeaseLost { lease, loss }));
            } else if over && acquired.account.open_redemption_id.is_some() {
                let loss = LeaseLoss::Expired;
                given.insert(waiter.wanted.request_id);
                let _ = waiter.reply.send(Err(Error::LeaseLost { lease, loss }));
            } else if over {
                // The request's last lease has run out and nobody has looked yet: it makes way.
                self.expire_from = None;
                self.expired = Looks::default();
                self.turns.put_back(waiter);
            } else {
                let fresh = acquired.fresh;
                given.insert(waiter.wanted.request_id);
                if fresh {
                    self.turns.given(&waiter.wanted.holder);
                }
                if waiter.reply.send(Ok(acquired)).is_err() && fresh {
                    unwanted.push(lease);
                }
            }
        }
        // Whoever asked for these has left.
        unwanted.extend(found.into_values().filter(|left| left.fresh).map(|left| LeaseRef {
            pool_id: self.pool_id.clone(),
            account_id: left.account.account_id,
            token: left.account.token,
        }));
        if !unwanted.is_empty() {
            self.give_back(unwanted);
        }
        given
    }

    /// Ends leases whose callers have gone. Under load they are many, and those who wait for an account are
    /// not to wait for each of these.
    fn give_back(&self, leases: Vec<LeaseRef>) {
        let (store, freed) = (self.store.clone(), Arc::clone(&self.freed));
        tokio::spawn(async move {
            let given_back = join_all(leases.iter().map(|lease| give_back(&store, lease))).await;
            given_back.into_iter().for_each(|account| freed.note(account));
        });
    }

    /// Ends leases whose time has passed. True when there were any.
    async fn end_expired(&mut self) -> bool {
        if self.expire_from.is_some_and(|from| Instant::now() < from) {
            return false;
        }
        let limit = i64::try_from(MAX_ROWS).unwrap_or(i64::MAX);
        let look = self.expired.begin();
        let ended = self.store.expire(&self.pool_id, look.within, limit, "acquirer").await;
        let pause = match ended {
            Ok(_) => look.pause(EXPIRE_AT_MOST_EVERY),
            Err(_) => EXPIRE_AT_MOST_EVERY,
        };
        self.expire_from = Some(Instant::now() + pause);
        self.expired.end(&look, ended.as_ref().is_ok_and(|ended| !ended.may_be_more));
        match ended {
            Ok(ended) => {
                for account in &ended.rows {
                    log_expired(account);
                    if let Some(freed) = Freed::of(account) {
                        self.walks.note_freed(&freed);
                        self.slow.offer(&freed);
                    }
                }
                !ended.rows.is_empty()
            }
            Err(error) => {
                // Or they were, and the answer was lost.
                self.walks.forget();
                tracing::warn!(pool_id = %self.pool_id, %error, "expired leases could not be looked for");
                false
            }
        }
    }

    /// Puts accounts whose time has come where the acquire statement finds them in order: it looks at
    /// few others. True when there may be more of them than it saw, so that it is worth to try again.
    async fn unpark(&mut self) -> bool {
        if self.unparked_at.is_some_and(|at| at.elapsed() < UNPARK_AT_MOST_EVERY) {
            return false;
        }
        match self.store.unpark(&self.pool_id, UNPARK_AT_ONCE).await {
            Ok(unparked) => {
                unparked.rows.iter().for_each(|account| self.walks.note_freed(account));
                if !unparked.may_be_more {
                    self.unparked_at = Some(Instant::now());
                }
                unparked.may_be_more
            }
            Err(error) => {
                self.unparked_at = Some(Instant::now());
                self.walks.forget();
                tracing::debug!(pool_id = %self.pool_id, %error, "accounts could not be unparked");
                false
            }
        }
    }

    /// Refuses those who wait for something that is not there, or that is paused: waiting is no use.
    async fn check(&mut self, selector: &Arc<Selector>) {
        if !self.turns.iter().any(|waiter| waiter.selector == *selector && !waiter.checked) {
            return;
        }
        match why::missing(&self.store, &self.pool_id, selector).await {
            Ok(None) => {
                let same = self.turns.iter_mut().filter(|waiter| waiter.selector == *selector);
                same.for_each(|waiter| waiter.checked = true);
            }
            Ok(Some(error)) => self.refuse(selector, &error),
            Err(error) => {
                tracing::warn!(pool_id = %self.pool_id, %error, "a selector could not be checked");
            }
        }
    }

    /// Refuses everybody when the pool was paused or drained while they waited: waiting is no use.
    async fn refuse_if_closed(&mut self) {
        if self.turns.is_empty()
            || self.looked_at.is_some_and(|at| at.elapsed() < LOOK_AT_MOST_EVERY)
        {
            return;
        }
        self.looked_at = Some(Instant::now());
        match why::missing(&self.store, &self.pool_id, &Selector::default()).await {
            Ok(None) => {}
            Ok(Some(error)) => {
                for (waiter, ()) in self.turns.take(|_| Some(())) {
                    let _ = waiter.reply.send(Err(error.clone()));
                }
            }
            Err(error) => {
                tracing::debug!(pool_id = %self.pool_id, %error, "a pool could not be looked at");
            }
        }
    }

    fn refuse(&mut self, selector: &Arc<Selector>, error: &Error) {
        for (waiter, ()) in self.turns.take(|waiter| (waiter.selector == *selector).then_some(())) {
            let _ = waiter.reply.send(Err(error.clone()));
        }
    }

    /// Those who have waited long enough for a database are told that there is none; the others go on
    /// waiting. What was asked for them may have been done, and is found when they are tried again.
    fn no_database(&mut self, why: &str) {
        let now = Instant::now();
        let done = self.turns.take(|waiter| {
            // Once more in any case: one try may have taken all the time, without an answer.
            let over = waiter.until.max(waiter.since + PATIENCE) <= now;
            (waiter.unanswered && over).then_some(())
        });
        for (waiter, ()) in done {
            let _ = waiter.reply.send(Err(StoreError::Unavailable(why.to_owned()).into()));
        }
        self.turns.iter_mut().for_each(|waiter| waiter.unanswered = true);
    }

    /// Tells those whose time is over why they got nothing, and what their place was.
    fn dismiss(&mut self) {
        let now = Instant::now();
        let (beside, slow) = (&self.beside, &self.slow);
        let is_over = |waiter: &Waiter| {
            let wish = waiter.wish();
            let has_no_attempt = !waiter.tried && slow.may_have_waited(&wish);
            let more = if has_no_attempt { FIRST_ATTEMPT } else { Duration::ZERO };
            waiter.until + more <= now && !beside.is_for(&wish)
        };
        if !self.turns.iter().any(is_over) {
            return;
        }
        let waiting = self.turns.len();
        let places = self.turns.places();
        let mut groups: HashMap<Wish, Vec<GaveUp>> = HashMap::new();
        for (waiter, ()) in self.turns.take(|waiter| is_over(waiter).then_some(())) {
            let position =
                places.get(waiter.wanted.request_id.as_str()).copied().unwrap_or(waiting);
            groups.entry(waiter.wish()).or_default().push(GaveUp { waiter, position, waiting });
        }
        for (wish, gave_up) in groups {
            let (store, pool_id) = (self.store.clone(), self.pool_id.clone());
            let (known, may_be_slow) = (Arc::clone(&self.known), self.slow.may_be_slow(&wish));
            tokio::spawn(why::explain(store, pool_id, wish, known, may_be_slow, gave_up));
        }
    }
}
