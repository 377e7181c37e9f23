//! The dispatcher: the task that hands out a pool's accounts on this server.

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
    FreedHere, give_back,
    scans::CursorsByCriteria,
    side_statements::SideStatements,
    slow::SlowCriteria,
    wait_queue::{Criteria, MAX_ROWS, WaitQueue, Waiter},
    why_none::{self, SharedCounts, TimedOut},
};
use crate::{
    admission::{self, Meter},
    domain::{
        id::{PoolId, RequestId},
        lease::{LeaseLoss, LeaseRef},
    },
    failpoints::{self, Guard},
    service::{Error, poll::PollWindow, sweep::log_expired},
    store::{
        Store, StoreError,
        acquire::{Acquired, Selector},
        scan::Freed,
    },
};

/// How often those who wait are tried again when nothing wakes them. Of each, a random part is left
/// out, so that servers do not ask at the same moment.
const POLL: Duration = Duration::from_millis(200);
/// The most callers that may wait for one pool's accounts. One more is refused as overload.
pub(super) const MAX_WAITING: usize = 16_384;
/// The least time between two polls for expired leases, while somebody waits.
const EXPIRE_AT_MOST_EVERY: Duration = Duration::from_millis(100);
/// The least time between two promotions of deferred accounts, after somebody was served.
const PROMOTE_AT_MOST_EVERY: Duration = Duration::from_millis(100);
/// The least time between two checks whether the pool is open, while somebody waits in vain.
const CHECK_AT_MOST_EVERY: Duration = Duration::from_millis(100);
/// The most accounts that are promoted at once: the acquire statement itself reads as many deferred ones.
const PROMOTE_AT_ONCE: usize = 1000;
/// How long those who find no database wait for one, at the least: as long as callers of the store's lanes. Their
/// own time to wait for an account may be shorter.
const PATIENCE: Duration = Duration::from_secs(5);
/// How much longer somebody with slow criteria waits, whose time is over, until a statement has tried them once.
const FIRST_ATTEMPT: Duration = Duration::from_secs(30);

/// See [the module](self).
pub(super) struct Dispatcher {
    pub(super) store: Store,
    pub(super) pool_id: PoolId,
    pub(super) arrivals: mpsc::Receiver<Waiter>,
    pub(super) freed: Arc<FreedHere>,
    pub(super) queue: WaitQueue,
    /// The scan cursors for each criteria.
    pub(super) cursors: CursorsByCriteria,
    /// Criteria that are not part of the pass.
    pub(super) slow: SlowCriteria,
    /// Their statements.
    pub(super) side: SideStatements,
    /// When the pool's accounts were last counted, up to a few.
    pub(super) counted_at: Option<Instant>,
    /// When the next poll for expired leases may be.
    pub(super) expire_from: Option<Instant>,
    /// How far back.
    pub(super) expired: PollWindow,
    pub(super) promoted_at: Option<Instant>,
    pub(super) checked_at: Option<Instant>,
    /// The last explanations, for others who ask the same.
    pub(super) recent: SharedCounts,
    pub(super) closing: CancellationToken,
    /// How long new waiters wait for the first statement that tries to serve them.
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
                    let _ = self.promote().await;
                }
                Err(why) => self.no_database(&why),
            }
            self.waiting_gauge.set(self.queue.len() as f64);
        }
    }

    /// Waits until there is something to do: somebody arrives, an account may be free, or somebody's
    /// time is over. False when the server is closing.
    async fn gather(&mut self) -> bool {
        let now = Instant::now();
        let poll = now + POLL.mul_f64(rand::rng().random_range(0.5..1.0));
        // Those whose time is over already wait for a database alone, and are tried at the next poll.
        let ends = self.queue.iter().map(|waiter| waiter.until).filter(|until| *until > now);
        let next = (!self.queue.is_empty()).then(|| ends.min().map_or(poll, |at| at.min(poll)));
        let idle = async {
            match next {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.closing.cancelled() => return false,
            arrived = self.arrivals.recv(), if self.queue.len() < MAX_WAITING => match arrived {
                Some(waiter) => self.queue.push(waiter),
                None => return false,
            },
            () = self.freed.bell.notified(), if !self.queue.is_empty() => {}
            (all_criteria, attempted) = self.side.ended() => {
                self.conclude_side(all_criteria, attempted).await;
            }
            () = idle => {}
        }
        while self.queue.len() < MAX_WAITING
            && let Ok(waiter) = self.arrivals.try_recv()
        {
            self.queue.push(waiter);
        }
        for _ in 0..self.queue.drop_gone() {
            admission::note_dropped("acquire");
        }
        true
    }

    fn close(mut self) {
        self.arrivals.close();
        while let Ok(waiter) = self.arrivals.try_recv() {
            self.queue.push(waiter);
        }
        for (waiter, ()) in self.queue.take(|_| Some(())) {
            let _ = waiter.reply.send(Err(Error::ShuttingDown));
        }
    }

    /// Gives each lease to the first who waits for it. Answers who was served.
    async fn hand_out(&mut self, mut found: HashMap<RequestId, Acquired>) -> HashSet<RequestId> {
        let mut given = HashSet::new();
        let mut unwanted = Vec::new();
        for (waiter, acquired) in self.queue.take(|waiter| found.remove(&waiter.wanted.request_id))
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
                // The request's last lease has run out and is not ended yet: it is ended first.
                self.expire_from = None;
                self.expired = PollWindow::default();
                self.queue.put_back(waiter);
            } else {
                let fresh = acquired.fresh;
                given.insert(waiter.wanted.request_id);
                if fresh {
                    self.queue.given(&waiter.wanted.holder);
                }
                if waiter.reply.send(Ok(acquired)).is_err() && fresh {
                    unwanted.push(lease);
                }
            }
        }
        // Those who asked for these have left.
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
        let poll = self.expired.begin();
        let ended = self.store.expire(&self.pool_id, poll.within, limit, "acquirer").await;
        let pause = match ended {
            Ok(_) => poll.pause(EXPIRE_AT_MOST_EVERY),
            Err(_) => EXPIRE_AT_MOST_EVERY,
        };
        self.expire_from = Some(Instant::now() + pause);
        self.expired.end(&poll, ended.as_ref().is_ok_and(|ended| !ended.may_be_more));
        match ended {
            Ok(ended) => {
                for account in &ended.rows {
                    log_expired(account);
                    if let Some(freed) = Freed::of(account) {
                        self.cursors.note_freed(&freed);
                        self.slow.offer(&freed);
                    }
                }
                !ended.rows.is_empty()
            }
            Err(error) => {
                // Or they were, and the answer was lost.
                self.cursors.forget();
                tracing::warn!(pool_id = %self.pool_id, %error, "expired leases could not be read");
                false
            }
        }
    }

    /// Puts accounts whose time has come where the acquire statement finds them in order: it reads
    /// few others. True when there may be more of them than it saw, so that it is worth to try again.
    async fn promote(&mut self) -> bool {
        if self.promoted_at.is_some_and(|at| at.elapsed() < PROMOTE_AT_MOST_EVERY) {
            return false;
        }
        match self.store.promote(&self.pool_id, PROMOTE_AT_ONCE).await {
            Ok(promoted) => {
                promoted.rows.iter().for_each(|account| self.cursors.note_freed(account));
                if !promoted.may_be_more {
                    self.promoted_at = Some(Instant::now());
                }
                promoted.may_be_more
            }
            Err(error) => {
                self.promoted_at = Some(Instant::now());
                self.cursors.forget();
                tracing::debug!(pool_id = %self.pool_id, %error, "deferred accounts could not be promoted");
                false
            }
        }
    }

    /// Refuses those who wait for something that is not there, or that is paused: waiting is no use.
    async fn check(&mut self, selector: &Arc<Selector>) {
        if !self.queue.iter().any(|waiter| waiter.selector == *selector && !waiter.checked) {
            return;
        }
        match why_none::missing(&self.store, &self.pool_id, selector).await {
            Ok(None) => {
                let same = self.queue.iter_mut().filter(|waiter| waiter.selector == *selector);
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
        if self.queue.is_empty()
            || self.checked_at.is_some_and(|at| at.elapsed() < CHECK_AT_MOST_EVERY)
        {
            return;
        }
        self.checked_at = Some(Instant::now());
        match why_none::missing(&self.store, &self.pool_id, &Selector::default()).await {
            Ok(None) => {}
            Ok(Some(error)) => {
                for (waiter, ()) in self.queue.take(|_| Some(())) {
                    let _ = waiter.reply.send(Err(error.clone()));
                }
            }
            Err(error) => {
                tracing::debug!(pool_id = %self.pool_id, %error, "a pool could not be read");
            }
        }
    }

    fn refuse(&mut self, selector: &Arc<Selector>, error: &Error) {
        for (waiter, ()) in self.queue.take(|waiter| (waiter.selector == *selector).then_some(())) {
            let _ = waiter.reply.send(Err(error.clone()));
        }
    }

    /// Those who have waited long enough for a database are told that there is none; the others go on
    /// waiting. What was asked for them may have been done, and is found when they are tried again.
    fn no_database(&mut self, why: &str) {
        let now = Instant::now();
        let done = self.queue.take(|waiter| {
            // Once more in any case: one try may have taken all the time, without an answer.
            let over = waiter.until.max(waiter.since + PATIENCE) <= now;
            (waiter.unanswered && over).then_some(())
        });
        for (waiter, ()) in done {
            let _ = waiter.reply.send(Err(StoreError::Unavailable(why.to_owned()).into()));
        }
        self.queue.iter_mut().for_each(|waiter| waiter.unanswered = true);
    }

    /// Tells those whose time is over why they got nothing, and what their position was.
    fn dismiss(&mut self) {
        let now = Instant::now();
        let (beside, slow) = (&self.side, &self.slow);
        let is_over = |waiter: &Waiter| {
            let criteria = waiter.criteria();
            let has_no_attempt = !waiter.tried && slow.may_have_waited(&criteria);
            let more = if has_no_attempt { FIRST_ATTEMPT } else { Duration::ZERO };
            waiter.until + more <= now && !beside.is_for(&criteria)
        };
        if !self.queue.iter().any(is_over) {
            return;
        }
        let waiting = self.queue.len();
        let positions = self.queue.positions();
        let mut groups: HashMap<Criteria, Vec<TimedOut>> = HashMap::new();
        for (waiter, ()) in self.queue.take(|waiter| is_over(waiter).then_some(())) {
            let position =
                positions.get(waiter.wanted.request_id.as_str()).copied().unwrap_or(waiting);
            groups.entry(waiter.criteria()).or_default().push(TimedOut {
                waiter,
                position,
                waiting,
            });
        }
        for (criteria, timed_out) in groups {
            let (store, pool_id) = (self.store.clone(), self.pool_id.clone());
            let (recent, may_be_slow) =
                (Arc::clone(&self.recent), self.slow.may_be_slow(&criteria));
            tokio::spawn(why_none::explain(
                store,
                pool_id,
                criteria,
                recent,
                may_be_slow,
                timed_out,
            ));
        }
    }
}
