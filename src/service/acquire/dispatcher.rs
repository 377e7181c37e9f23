//! The one who hands out a pool's accounts on this server.

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
    beside::{Attempt, Attempted, Beside},
    give_back,
    slow::{FEW_ACCOUNTS, How, Kind, SlowCriteria, patience_after},
    turns::{MAX_ROWS, Turns, Waiter, Wish},
    walks::WalksByWish,
    why::{self, GaveUp, Known},
};
use crate::{
    domain::{
        id::{PoolId, RequestId},
        lease::{LeaseLoss, LeaseRef},
    },
    injection::{self, Guard},
    overload::{self, Meter},
    service::{Error, pace::Looks, sweep::log_expired},
    store::{
        Store, StoreError,
        acquire::{Acquired, Selector, Wanted},
        walks::{Freed, Walks},
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
/// How often it is found out whether a pool has many accounts.
const COUNT_AT_MOST_EVERY: Duration = Duration::from_secs(60);
/// How long somebody whose time is over, and for whom no statement has looked for an account yet, waits for one.
const FIRST_ATTEMPT: Duration = Duration::from_secs(30);
/// No statement of ours takes longer. One that does not end before this was not stopped for want of a database.
const NEARLY_TIMED_OUT: Duration = Duration::from_secs(10);

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

/// What a pass knows.
#[derive(Default)]
struct Pass {
    /// Criteria that found nothing in it.
    exhausted: HashSet<Wish>,
    /// How long statements took that left somebody without, of criteria that may make them slow.
    spent: Duration,
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
            overload::note_dropped("acquire");
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

    /// Serves those who wait, until nobody more can be. Says why when there was no database.
    async fn serve(&mut self) -> Result<(), String> {
        let mut pass = Pass::default();
        self.count_accounts().await;
        let mut freed = self.freed.count();
        // A pass must end even while accounts come back all the time: others arrive, and time passes.
        let mut restarts = 4;
        loop {
            // What became free meanwhile is theirs first who were tried in vain before.
            let freed_now = self.freed.count();
            if std::mem::replace(&mut freed, freed_now) != freed_now && restarts > 0 {
                restarts -= 1;
                pass.exhausted.clear();
            }
            self.note_freed();
            let next = self.turns.next_group(|wish| self.how(&pass, wish));
            let Some((how, selector, wanted)) = next else {
                // Whoever is left waits for an account, which is no work.
                self.turns.iter().for_each(|waiter| waiter.caller.step_aside());
                return Ok(());
            };
            match how {
                How::Offered => self.try_offered(&selector, &wanted).await?,
                How::Now | How::First(_) => {
                    self.try_group(&mut pass, how, selector, wanted).await?
                }
            }
        }
    }

    /// Finds out whether the pool has so many accounts that criteria may be slow, when somebody waits with such.
    async fn count_accounts(&mut self) {
        let is_fresh = self.counted_at.is_some_and(|at| at.elapsed() < COUNT_AT_MOST_EVERY);
        if is_fresh || !self.turns.iter().any(|waiter| super::slow::kind(&waiter.wish()).is_some())
        {
            return;
        }
        match self.store.has_more_accounts(&self.pool_id, FEW_ACCOUNTS).await {
            Ok(has_more) => {
                self.slow.set_large(has_more);
                self.counted_at = Some(Instant::now());
            }
            Err(error) => {
                tracing::debug!(pool_id = %self.pool_id, %error, "a pool's accounts could not be counted");
            }
        }
    }

    /// How whoever asks so is served in this pass, if at all.
    fn how(&self, pass: &Pass, wish: &Wish) -> Option<How> {
        if pass.exhausted.contains(wish) || self.beside.is_for(wish) {
            return None;
        }
        self.slow.how(wish, |kind| self.beside.is_free(kind))
    }

    /// Tells the walks, and whoever waits with slow criteria, what came free.
    fn note_freed(&mut self) {
        let (accounts, is_changed) = self.freed.take();
        for freed in &accounts {
            self.walks.note_freed(freed);
            self.slow.offer(freed);
        }
        if is_changed {
            self.walks.forget();
            self.slow.changed();
            // There may be more accounts now.
            self.counted_at = self.counted_at.filter(|_| self.slow.is_large());
        }
    }

    /// Runs the statement for some who ask for the same, and hands out what it finds. One of criteria that are not
    /// known is waited for only for a moment.
    async fn try_group(
        &mut self,
        pass: &mut Pass,
        how: How,
        selector: Arc<Selector>,
        wanted: Vec<Wanted>,
    ) -> Result<(), String> {
        let is_new = self.note_tried(&wanted);
        let attempt = self.attempt(selector, wanted, is_new);
        let attempted = match how {
            How::First(kind) => {
                let patience = patience_after(pass.spent);
                let begun = Instant::now();
                let wishes = attempt.wishes();
                let attempted = self.beside.start(kind, attempt, patience).await;
                if attempted.is_none() {
                    pass.spent += begun.elapsed();
                    // From now on they are offered what comes free.
                    wishes.into_iter().for_each(|wish| self.slow.left_the_pass(wish));
                }
                attempted
            }
            _ => Some(Ok(attempt.run().await)),
        };
        if is_new {
            self.meter.ends();
        }
        match attempted {
            // It goes on beside the pass.
            None => Ok(()),
            Some(Ok(attempted)) => self.conclude(pass, attempted).await,
            Some(Err(error)) => Err(format!("a task that acquired ended: {error}")),
        }
    }

    /// Notes that a statement is about to look for accounts for the requests. True when none has for some of them.
    fn note_tried(&mut self, wanted: &[Wanted]) -> bool {
        let requests = wanted.iter().map(|w| &w.request_id).collect();
        let came = self.turns.try_now(&requests);
        if let Some(came) = came {
            self.meter.begins(came);
        }
        came.is_some()
    }

    fn attempt(&mut self, selector: Arc<Selector>, wanted: Vec<Wanted>, is_new: bool) -> Attempt {
        let requests = wanted.iter().map(|w| &w.request_id).collect();
        let is_pressing = is_new || self.turns.is_last_chance(&requests);
        let expected_minor = wanted.first().and_then(|one| one.expected_minor);
        let walked_for = Wish { selector: Arc::clone(&selector), expected_minor };
        let mut walks = std::mem::take(self.walks.of(walked_for.clone()));
        walks.note_pressing(is_pressing);
        let (store, pool_id) = (self.store.clone(), self.pool_id.clone());
        Attempt { store, pool_id, selector, wanted, walks, walked_for }
    }

    /// Hands out what a statement of the pass found.
    async fn conclude(&mut self, pass: &mut Pass, attempted: Attempted) -> Result<(), String> {
        let Attempted { selector, hopes, walks, walked_for, took, found } = attempted;
        *self.walks.of(walked_for) = walks;
        let found = match found {
            Ok(found) => found,
            Err(StoreError::Unavailable(why)) => return Err(why),
            Err(error) => {
                self.refuse(&selector, &Error::Store(error));
                return Ok(());
            }
        };
        let leases = found.len();
        let given = self.hand_out(found).await;
        let without = without(&hopes, &given);
        self.note_time(&selector, &hopes, &without, took, leases, pass.spent);
        if without.is_empty() {
            return Ok(());
        }
        let wishes = wishes(&selector, &without);
        if wishes.iter().any(|wish| super::slow::kind(wish).is_some()) {
            pass.spent += took;
        }
        if !self.end_expired().await && !self.unpark().await {
            self.check(&selector).await;
            pass.exhausted.extend(wishes);
        }
        Ok(())
    }

    /// Hands out what a statement beside the pass found.
    async fn conclude_beside(
        &mut self,
        wishes: HashSet<Wish>,
        attempted: Result<Attempted, tokio::task::JoinError>,
    ) {
        let Attempted { selector, hopes, took, found, .. } = match attempted {
            Ok(attempted) => attempted,
            Err(error) => {
                tracing::error!(pool_id = %self.pool_id, %error, "a task that acquired ended");
                for wish in wishes {
                    self.slow.note(wish, NEARLY_TIMED_OUT, 0, false, Duration::ZERO);
                }
                return;
            }
        };
        let found = match found {
            Ok(found) => found,
            Err(StoreError::Unavailable(why)) if took < NEARLY_TIMED_OUT => {
                wishes.into_iter().for_each(|wish| self.slow.left_the_pass(wish));
                return self.no_database(&why);
            }
            // It read more than it may.
            Err(StoreError::Unavailable(_)) => HashMap::new(),
            Err(error) => return self.refuse(&selector, &Error::Store(error)),
        };
        let leases = found.len();
        let given = self.hand_out(found).await;
        let without = without(&hopes, &given);
        self.note_time(&selector, &hopes, &without, took, leases, Duration::ZERO);
        if !without.is_empty() {
            self.check(&selector).await;
        }
    }

    fn note_time(
        &mut self,
        selector: &Arc<Selector>,
        hopes: &HashMap<RequestId, Option<i64>>,
        without: &HashSet<Option<i64>>,
        took: Duration,
        leases: usize,
        spent: Duration,
    ) {
        let amounts: HashSet<_> = hopes.values().copied().collect();
        let took = took / u32::try_from(amounts.len()).unwrap_or(u32::MAX).max(1);
        for wish in wishes(selector, &amounts) {
            let is_enough = !without.contains(&wish.expected_minor);
            self.slow.note(wish, took, leases, is_enough, spent);
        }
    }

    /// Tries the accounts that came free and may fit slow criteria, each by its name.
    async fn try_offered(
        &mut self,
        selector: &Arc<Selector>,
        wanted: &[Wanted],
    ) -> Result<(), String> {
        let mut wanted = wanted.to_vec();
        let amounts: HashSet<_> = wanted.iter().map(|one| one.expected_minor).collect();
        let mut taken = HashSet::new();
        for account_id in self.slow.take_offered(selector) {
            if wanted.is_empty() {
                break;
            }
            let only = Selector { account_id: Some(account_id), ..(**selector).clone() };
            let mut walks = Walks::default();
            let found = self.store.acquire(&self.pool_id, &only, &wanted, &mut walks).await;
            match found {
                Ok(found) => {
                    let given = self.hand_out(found).await;
                    let is_given = |one: &&Wanted| given.contains(&one.request_id);
                    taken.extend(wanted.iter().filter(is_given).map(|one| one.expected_minor));
                    wanted.retain(|one| !is_given(&one));
                }
                Err(StoreError::Unavailable(why)) => return Err(why),
                Err(error) => {
                    tracing::warn!(pool_id = %self.pool_id, %error, "an account could not be offered");
                }
            }
        }
        for wish in wishes(selector, &amounts) {
            self.slow.note_offered(&wish, taken.contains(&wish.expected_minor));
        }
        Ok(())
    }

    /// Starts to check slow criteria again whose time has come, those first whose time came first.
    async fn check_slow(&mut self) {
        self.slow.forget_but(|| self.turns.iter().map(Waiter::wish).collect());
        for kind in Kind::ALL {
            if !self.beside.is_free(kind) {
                continue;
            }
            let now = Instant::now();
            let due = |waiter: &Waiter| {
                let wish = waiter.wish();
                let at = self.slow.due_at(&wish, waiter.tried)?;
                let is_due = at <= now && super::slow::kind(&wish) == Some(kind);
                (is_due && !waiter.is_gone()).then_some((at, wish))
            };
            let first = self.turns.iter().filter_map(due).min_by_key(|(at, _)| *at);
            let Some((_, first)) = first else { continue };
            let group = self.turns.next_group(|wish| (*wish == first).then_some(()));
            let Some(((), selector, wanted)) = group else { continue };
            let is_new = self.note_tried(&wanted);
            let attempt = self.attempt(selector, wanted, is_new);
            // None: it is not waited for.
            let _ = self.beside.start(kind, attempt, Duration::ZERO).await;
            if is_new {
                self.meter.ends();
            }
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
            let over = acquired.account.lease.as_ref().is_none_or(|l| l.remaining.is_zero())
                && injection::holds(Guard::HandedOutAlive);
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
        let beside = &self.beside;
        let is_over = |waiter: &Waiter| {
            // One for whom no statement has looked for an account yet waits for the first.
            let more = if waiter.tried { Duration::ZERO } else { FIRST_ATTEMPT };
            waiter.until + more <= now && !beside.is_for(&waiter.wish())
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
            tokio::spawn(why::explain(store, pool_id, wish, Arc::clone(&self.known), gave_up));
        }
    }
}

/// What those expect who got nothing.
fn without(
    hopes: &HashMap<RequestId, Option<i64>>,
    given: &HashSet<RequestId>,
) -> HashSet<Option<i64>> {
    let without = hopes.iter().filter(|(request_id, _)| !given.contains(*request_id));
    without.map(|(_, expected_minor)| *expected_minor).collect()
}

fn wishes(selector: &Arc<Selector>, amounts: &HashSet<Option<i64>>) -> Vec<Wish> {
    let wish =
        |amount: &Option<i64>| Wish { selector: Arc::clone(selector), expected_minor: *amount };
    amounts.iter().map(wish).collect()
}
