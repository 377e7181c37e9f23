//! Origins: whom calls are counted for, and what one of them may have.
//!
//! The origin of a call is its principal. Where nobody is asked who they are it is the call's connection. Each has a
//! bound on the calls that are not finished, and on the reads that it begins in a second. What all share is shared
//! fairly among origins, as it is among pools.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::Either;
use tokio::time::{Instant, sleep};

/// What one caller may have, and for how long a server keeps what nobody uses.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Its calls that are not finished: those whose answers it has not taken are not.
    pub calls: usize,
    /// Reads that it may begin in a second, and so many at once.
    pub reads_per_second: u32,
    /// Cards that it may have the provider asked about in a second, and so many at once.
    pub inquiries_per_second: u32,
    /// Bytes of its requests that are not complete, and of its answers that are not taken.
    pub bytes: usize,
    /// Bytes of what callers who wait for an account ask for, of all of them.
    pub waiting_bytes: usize,
    /// How long a statement of a read may take.
    pub read_timeout: Duration,
    /// After how long without a call a server lets go of a pool: its accounts in memory, and its tasks.
    pub idle_pool: Duration,
}

/// What is quick to have again is let go of after so great a part of [`Limits::idle_pool`].
const SMALL_PART: u32 = 20;

impl Limits {
    /// The same of a pool of few accounts, and of the tasks that write what was asked for.
    pub fn idle_small_pool(&self) -> Duration {
        self.idle_pool / SMALL_PART
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            calls: 8192,
            reads_per_second: 2000,
            inquiries_per_second: 200,
            bytes: 32 * 1024 * 1024,
            waiting_bytes: 64 * 1024 * 1024,
            read_timeout: Duration::from_secs(10),
            idle_pool: Duration::from_secs(600),
        }
    }
}

/// So many principals are kept, whether or not they call now.
const KEPT: usize = 10_000;

/// The origins of a server's calls.
#[derive(Debug)]
pub struct Origins {
    limits: Limits,
    principals: Mutex<HashMap<Arc<str>, Arc<Origin>>>,
}

/// See [the module](self).
#[derive(Debug)]
pub struct Origin {
    name: Arc<str>,
    limits: Limits,
    calls: AtomicUsize,
    reads: Mutex<Bucket>,
    inquiries: Mutex<Bucket>,
    /// Held by the first of those who wait until the provider may be asked.
    asks_next: tokio::sync::Mutex<()>,
}

/// A call that is not finished, until dropped.
#[derive(Debug)]
pub struct InFlight(Arc<Origin>);

tokio::task_local! {
    static ORIGIN: Arc<Origin>;
}

/// Whom the work of this task is done for, where it is done for anybody.
pub fn current() -> Option<Arc<Origin>> {
    ORIGIN.try_with(Arc::clone).ok()
}

/// The name of [`current`]; empty where it is nobody.
pub fn current_name() -> Arc<str> {
    ORIGIN.try_with(|origin| Arc::clone(&origin.name)).unwrap_or_default()
}

/// Does `work` for `origin`. Not an `async fn`, whose future would have room for `work` twice.
pub fn scope<F: Future>(
    origin: Option<Arc<Origin>>,
    work: F,
) -> impl Future<Output = F::Output> + use<F> {
    match origin {
        Some(origin) => Either::Left(ORIGIN.scope(origin, work)),
        None => Either::Right(work),
    }
}

impl Origins {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, principals: Mutex::default() }
    }

    /// What one of them may have.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// A caller of whom nothing is known but its connection. `name` is the connection's.
    pub fn connection(&self, name: &Arc<str>) -> Arc<Origin> {
        Arc::new(Origin::new(Arc::clone(name), self.limits))
    }

    /// A principal, by its name.
    pub fn principal(&self, name: &str) -> Arc<Origin> {
        let mut principals = lock(&self.principals);
        if let Some(origin) = principals.get(name) {
            return Arc::clone(origin);
        }
        if principals.len() >= KEPT {
            principals.retain(|_, origin| Arc::strong_count(origin) > 1);
        }
        let name: Arc<str> = name.into();
        let origin = Arc::new(Origin::new(Arc::clone(&name), self.limits));
        principals.insert(name, Arc::clone(&origin));
        origin
    }
}

impl Origin {
    fn new(name: Arc<str>, limits: Limits) -> Self {
        Self {
            name,
            limits,
            calls: AtomicUsize::new(0),
            reads: Mutex::new(Bucket::new(limits.reads_per_second)),
            inquiries: Mutex::new(Bucket::new(limits.inquiries_per_second)),
            asks_next: tokio::sync::Mutex::default(),
        }
    }

    /// The name that its share is kept by.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Begins a call, if it may have one more.
    pub fn begin(self: &Arc<Self>, is_read: bool) -> Option<InFlight> {
        let before = self.calls.fetch_add(1, Ordering::Relaxed);
        let call = InFlight(Arc::clone(self));
        if before >= self.limits.calls {
            note_limited("calls");
            return None;
        }
        if is_read && lock(&self.reads).take(Instant::now()).is_err() {
            note_limited("reads");
            return None;
        }
        Some(call)
    }

    /// Waits until the provider may be asked about one more card.
    pub async fn may_inquire(&self) {
        let take = || lock(&self.inquiries).take(Instant::now());
        if self.asks_next.try_lock().is_ok() && take().is_ok() {
            return;
        }
        note_limited("inquiries");
        let _first = self.asks_next.lock().await;
        while let Err(wait) = take() {
            sleep(wait).await;
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts a call, a question or an answer that a bound on one caller held up.
pub(crate) fn note_limited(limit: &'static str) {
    metrics::counter!("holdfast_callers_limited_total", "limit" => limit).increment(1);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What may be taken in a second, and how much of it is left.
#[derive(Debug)]
struct Bucket {
    each_second: f64,
    left: f64,
    counted: Instant,
}

impl Bucket {
    fn new(each_second: u32) -> Self {
        let each_second = f64::from(each_second);
        Self { each_second, left: each_second, counted: Instant::now() }
    }

    /// Takes one, or answers when there is one.
    fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let passed = now.saturating_duration_since(self.counted).as_secs_f64();
        self.left = (self.left + passed * self.each_second).min(self.each_second);
        self.counted = now;
        if self.left >= 1.0 {
            self.left -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - self.left) / self.each_second))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(limits: Limits) -> Origins {
        Origins::new(limits)
    }

    #[test]
    fn a_caller_has_no_more_calls_than_it_may_and_others_have_theirs() {
        let origins = origins(Limits { calls: 2, ..Limits::default() });
        let (one, other) = (origins.principal("one"), origins.principal("other"));
        let first = one.begin(false).unwrap();
        let _second = one.begin(false).unwrap();
        assert!(one.begin(false).is_none());
        assert!(other.begin(false).is_some());
        drop(first);
        assert!(origins.principal("one").begin(false).is_some(), "by any of its connections");
        assert!(one.begin(false).is_some(), "a refusal takes nothing");
    }

    #[test]
    fn what_is_taken_in_a_second_is_there_again_after_it() {
        let mut bucket = Bucket::new(10);
        let now = bucket.counted;
        assert!((0..10).all(|_| bucket.take(now).is_ok()));
        let wait = bucket.take(now).unwrap_err();
        assert!(bucket.take(now + wait / 2).is_err());
        assert!(bucket.take(now + wait + Duration::from_millis(1)).is_ok());
        let much_later = now + Duration::from_secs(600);
        assert_eq!((0..100).filter(|_| bucket.take(much_later).is_ok()).count(), 10);
    }

    #[test]
    fn reads_beyond_the_rate_are_refused_and_other_calls_are_not() {
        let origins = origins(Limits { reads_per_second: 3, ..Limits::default() });
        let origin = origins.connection(&"connection 1".into());
        assert_eq!((0..9).filter(|_| origin.begin(true).is_some()).count(), 3);
        assert!(origin.begin(false).is_some());
        assert_eq!(origin.calls.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn questions_beyond_the_rate_wait_in_turn() {
        let origins = origins(Limits { inquiries_per_second: 50, ..Limits::default() });
        let origin = origins.principal("one");
        let begun = Instant::now();
        futures_util::future::join_all((0..60).map(|_| origin.may_inquire())).await;
        assert!(begun.elapsed() >= Duration::from_millis(180), "ten of them at 50 a second");
    }

    #[tokio::test]
    async fn work_is_done_for_whom_it_is_said_to_be() {
        let origin = origins(Limits::default()).principal("one");
        assert_eq!(&*current_name(), "");
        scope(Some(origin), async { assert_eq!(&*current_name(), "one") }).await;
    }
}
