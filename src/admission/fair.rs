//! Fair permits: they are waited for, and shared fairly among pools, or among callers.
//!
//! In one pool the first to come is the first served. Pools get permits in rotation, however many of another wait, and
//! none may hold more than its [share](super::share).

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Notify, oneshot};

use super::share::{RESERVE, WAITING, may_take};

/// Permits for the work of pools. Cheap to clone.
#[derive(Clone, Debug)]
pub struct FairPermits(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    weight: usize,
    /// For pools that hold few.
    reserve: usize,
    /// The most that one may hold that has a name.
    most_of_one: usize,
    state: Mutex<State>,
    idle: Notify,
}

#[derive(Debug, Default)]
struct State {
    size: usize,
    used: usize,
    /// Those that hold a permit, or wait for one.
    pools: HashMap<Arc<str>, Pool>,
    /// Those that wait, in the order in which they get the next permits.
    order: VecDeque<Arc<str>>,
}

#[derive(Debug, Default)]
struct Pool {
    held: usize,
    waiting: VecDeque<oneshot::Sender<()>>,
}

/// A permit, until dropped.
#[derive(Debug)]
pub struct FairPermit {
    inner: Arc<Inner>,
    pool: Arc<str>,
}

impl FairPermits {
    /// As many as `size`. A pool may hold as many as are left, times `weight`. Where they are held for long there is a
    /// reserve beside them.
    pub(super) fn new(size: usize, weight: usize) -> Self {
        let reserve = if weight == WAITING { RESERVE } else { 0 };
        let state = Mutex::new(State { size: size + reserve, ..State::default() });
        let most_of_one = usize::MAX;
        Self(Arc::new(Inner { weight, reserve, most_of_one, state, idle: Notify::new() }))
    }

    /// For work that is held for a moment: a pool alone gets nearly all.
    pub fn for_work(size: usize) -> Self {
        Self::new(size, super::share::AT_WORK)
    }

    /// The same, of which one caller holds so many at the most. The server itself, which has no name, is not bound.
    pub fn for_work_of_callers(size: usize, most_of_one: usize) -> Self {
        let (weight, state) = (super::share::AT_WORK, State { size, ..State::default() });
        let (state, idle) = (Mutex::new(state), Notify::new());
        Self(Arc::new(Inner { weight, reserve: 0, most_of_one, state, idle }))
    }

    /// A permit for the pool, if there is one now.
    pub fn try_acquire(&self, pool: &str) -> Option<FairPermit> {
        let mut state = self.0.lock();
        let held = state.pools.get(pool);
        let is_next = held.is_none_or(|pool| pool.waiting.is_empty());
        let left = state.size.saturating_sub(state.used);
        if !is_next || !self.0.may_take(pool, held.map_or(0, |pool| pool.held), left) {
            return None;
        }
        let pool = state.name(pool);
        state.take(&pool);
        Some(FairPermit { inner: Arc::clone(&self.0), pool })
    }

    /// A permit for the pool, as soon as there is one.
    pub async fn acquire(&self, pool: &str) -> FairPermit {
        if let Some(permit) = self.try_acquire(pool) {
            return permit;
        }
        let mut waiting = self.queue_up(pool);
        // Ends with an error only where the other end is gone, which is kept as long as this one waits.
        let _ = (&mut waiting.granted).await;
        waiting.taken()
    }

    fn queue_up(&self, pool: &str) -> Waiting {
        let mut state = self.0.lock();
        let pool = state.name(pool);
        let (grant, granted) = oneshot::channel();
        let queue = &mut state.pools.entry(Arc::clone(&pool)).or_default().waiting;
        queue.push_back(grant);
        if queue.len() == 1 {
            state.order.push_back(Arc::clone(&pool));
        }
        state.grant(&self.0);
        Waiting { inner: Arc::clone(&self.0), pool, granted, done: false }
    }

    /// Changes how many there are. Those that are held beyond it stay until they are dropped.
    pub(super) fn resize(&self, size: usize) {
        let mut state = self.0.lock();
        state.size = size + self.0.reserve;
        state.grant(&self.0);
    }

    /// Waits until none is held.
    pub(super) async fn all_free(&self) {
        loop {
            let freed = self.0.idle.notified();
            if self.0.lock().used == 0 {
                return;
            }
            freed.await;
        }
    }

    /// Whether nobody holds any or waits for one.
    pub fn is_idle(&self) -> bool {
        self.0.lock().pools.is_empty()
    }

    /// How many are held.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.0.lock().used
    }

    /// How many pools hold or want any.
    #[cfg(test)]
    pub(super) fn pools(&self) -> usize {
        self.0.lock().pools.len()
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one that holds so many may have one more of those that are left.
    fn may_take(&self, name: &str, held: usize, left: usize) -> bool {
        (name.is_empty() || held < self.most_of_one)
            && may_take(held, left, self.reserve, self.weight)
    }

    fn release(&self, pool: &Arc<str>) {
        let mut state = self.lock();
        state.used -= 1;
        if let Some(pool_state) = state.pools.get_mut(pool) {
            pool_state.held -= 1;
        }
        state.grant(self);
        state.forget_if_idle(pool);
        if state.used == 0 {
            self.idle.notify_waiters();
        }
    }
}

impl State {
    fn name(&self, pool: &str) -> Arc<str> {
        self.pools.get_key_value(pool).map_or_else(|| Arc::from(pool), |(name, _)| Arc::clone(name))
    }

    fn take(&mut self, pool: &Arc<str>) {
        self.used += 1;
        self.pools.entry(Arc::clone(pool)).or_default().held += 1;
    }

    /// Gives out what is free, one to each pool in rotation.
    fn grant(&mut self, permits: &Inner) {
        while self.used < self.size {
            let left = self.size - self.used;
            let may = |name: &Arc<str>| {
                let pool = self.pools.get(name);
                pool.is_some_and(|pool| permits.may_take(name, pool.held, left))
            };
            let Some(next) = self.order.iter().position(may) else { return };
            let Some(pool) = self.order.remove(next) else { return };
            self.grant_one(&pool);
            if self.pools.get(&pool).is_some_and(|pool_state| !pool_state.waiting.is_empty()) {
                self.order.push_back(pool);
            } else {
                self.forget_if_idle(&pool);
            }
        }
    }

    /// To the first of the pool who still waits.
    fn grant_one(&mut self, pool: &Arc<str>) {
        let Some(pool_state) = self.pools.get_mut(pool) else { return };
        while let Some(grant) = pool_state.waiting.pop_front() {
            if grant.send(()).is_ok() {
                pool_state.held += 1;
                self.used += 1;
                return;
            }
        }
    }

    fn forget_if_idle(&mut self, pool: &Arc<str>) {
        if self.pools.get(pool).is_some_and(|pool| pool.held == 0 && pool.waiting.is_empty()) {
            self.pools.remove(pool);
            self.order.retain(|waiting| waiting != pool);
        }
    }
}

impl Drop for FairPermit {
    fn drop(&mut self) {
        self.inner.release(&self.pool);
    }
}

/// Somebody who waits for a permit. One that was granted just as it left is given back.
struct Waiting {
    inner: Arc<Inner>,
    pool: Arc<str>,
    granted: oneshot::Receiver<()>,
    done: bool,
}

impl Waiting {
    fn taken(mut self) -> FairPermit {
        self.done = true;
        FairPermit { inner: Arc::clone(&self.inner), pool: Arc::clone(&self.pool) }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        self.granted.close();
        if self.granted.try_recv().is_ok() {
            self.inner.release(&self.pool);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn a_pool_alone_leaves_something_for_one_that_comes_anew() {
        let permits = FairPermits::new(90, 8);
        let mut held: Vec<_> = std::iter::from_fn(|| permits.try_acquire("a")).collect();
        assert_eq!(held.len(), 80, "eight ninths");
        assert!(permits.try_acquire("b").is_some());
        held.clear();
        assert_eq!(
            (permits.held(), permits.pools()),
            (0, 0),
            "nothing is kept of pools that are idle"
        );
    }

    #[tokio::test]
    async fn pools_get_permits_in_rotation_however_many_of_one_wait() {
        let permits = FairPermits::new(2, 8);
        let first = [permits.acquire("a").await, permits.acquire("a").await];
        let mut of_a: Vec<_> = (0..100).map(|_| Box::pin(permits.acquire("a"))).collect();
        assert!(of_a.iter_mut().all(|wait| wait.as_mut().now_or_never().is_none()));
        let mut of_b = Box::pin(permits.acquire("b"));
        assert!(of_b.as_mut().now_or_never().is_none());
        drop(first);
        assert!(of_b.as_mut().now_or_never().is_some(), "the second that is free, not the 101st");
    }

    #[tokio::test]
    async fn who_leaves_the_queue_takes_no_permit_along() {
        let permits = FairPermits::new(1, 8);
        let held = permits.acquire("a").await;
        let mut leaves_early = Box::pin(permits.acquire("b"));
        let mut leaves_late = Box::pin(permits.acquire("b"));
        let mut stays = Box::pin(permits.acquire("b"));
        for wait in [&mut leaves_early, &mut leaves_late, &mut stays] {
            assert!(wait.as_mut().now_or_never().is_none());
        }
        drop(leaves_early);
        drop(held);
        drop(leaves_late);
        drop(stays.await);
        assert_eq!((permits.held(), permits.pools()), (0, 0));
        permits.all_free().await;
    }

    #[tokio::test]
    async fn one_caller_holds_no_more_than_one_may_and_the_server_is_not_bound() {
        let permits = FairPermits::for_work_of_callers(8, 2);
        let held = [permits.acquire("a").await, permits.acquire("a").await];
        let mut waits = Box::pin(permits.acquire("a"));
        assert!(waits.as_mut().now_or_never().is_none());
        let of_others: Vec<_> = (0..5).map(|_| permits.try_acquire("").unwrap()).collect();
        drop((permits.acquire("b").await, of_others));
        assert!(waits.as_mut().now_or_never().is_none(), "nor when others give theirs back");
        drop(held);
        drop(waits.await);
        assert_eq!((permits.held(), permits.pools()), (0, 0));
    }

    #[tokio::test]
    async fn fewer_permits_are_given_out_after_a_fall_of_the_size_and_more_after_a_rise() {
        let permits = FairPermits::new(8, 8);
        let mut held: Vec<_> = std::iter::from_fn(|| permits.try_acquire("a")).collect();
        permits.resize(2);
        held.truncate(3);
        let mut waits = Box::pin(permits.acquire("b"));
        assert!(waits.as_mut().now_or_never().is_none(), "three of two are held");
        permits.resize(8);
        assert!(waits.as_mut().now_or_never().is_some());
    }
}
