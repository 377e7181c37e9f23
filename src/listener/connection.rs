//! A connection, as its calls know it: whom they are counted for, and which of its answers are not taken.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::admission::{Origin, Origins};

/// A connection that is open.
pub struct Connection {
    name: Arc<str>,
    origin: OnceLock<Arc<Origin>>,
    began: Instant,
    /// Calls that are not finished.
    calls: AtomicUsize,
    /// When the last of them was finished, in milliseconds after it began.
    used_at: AtomicU64,
    next: AtomicU64,
    streams: Mutex<HashMap<u64, Weak<dyn Stream>>>,
}

/// An answer on its way, or a stream of both sides.
pub trait Stream: Send + Sync {
    /// For how long neither side has sent or taken anything.
    fn idle_for(&self) -> Duration;

    /// Ends it, and lets go of all that it holds.
    fn end(&self);

    /// For how long it has been ended without its caller being told. hyper asks an answer for more only when its stream
    /// has a window: one whose caller keeps that shut cannot be reset.
    fn untold_for(&self) -> Option<Duration>;
}

/// A call that is not finished, until dropped.
#[derive(Debug)]
pub struct OpenCall(Arc<Connection>);

/// A stream that is watched, until dropped.
#[derive(Debug)]
pub struct Watched {
    connection: Arc<Connection>,
    number: u64,
}

/// How long a caller may keep the window of a stream shut that was ended, at most, before its connection is closed.
const UNTOLD: Duration = Duration::from_secs(10);

/// What is known of a connection's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Some are in use.
    InUse,
    /// There are none, for so long.
    Unused(Duration),
    /// There are none any more: the last of them were ended because they were idle.
    AllEnded,
    /// One was ended, and its caller cannot be told of it.
    Untold,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Connection {
    pub(super) fn new() -> Arc<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self {
            // No principal has a space in its name.
            name: format!("connection {number}").into(),
            origin: OnceLock::new(),
            began: Instant::now(),
            calls: AtomicUsize::new(0),
            used_at: AtomicU64::new(0),
            next: AtomicU64::new(0),
            streams: Mutex::default(),
        })
    }

    /// What it is called where its caller has no name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whom calls are counted for whose caller is nobody in particular.
    pub fn origin(&self, origins: &Origins) -> &Arc<Origin> {
        self.origin.get_or_init(|| origins.connection(&self.name))
    }

    /// Begins a call.
    pub fn begin(self: &Arc<Self>) -> OpenCall {
        self.calls.fetch_add(1, Ordering::Relaxed);
        OpenCall(Arc::clone(self))
    }

    /// Ends `stream` where it is idle for too long.
    pub fn watch(self: &Arc<Self>, stream: Weak<dyn Stream>) -> Watched {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.streams().insert(number, stream);
        Watched { connection: Arc::clone(self), number }
    }

    /// Ends the streams that were idle for `limit`.
    pub(super) fn end_idle(&self, limit: Duration) -> Seen {
        let live: Vec<_> = self.streams().values().filter_map(Weak::upgrade).collect();
        let (ended, open): (Vec<_>, Vec<_>) =
            live.into_iter().partition(|stream| stream.untold_for().is_some());
        let idle: Vec<_> = open.iter().filter(|stream| stream.idle_for() >= limit).collect();
        metrics::counter!("holdfast_streams_idle_total").increment(idle.len() as u64);
        idle.iter().for_each(|stream| stream.end());
        if ended.iter().any(|stream| stream.untold_for() >= Some(UNTOLD.min(limit))) {
            return Seen::Untold;
        }
        if self.calls.load(Ordering::Relaxed) > 0 {
            return Seen::InUse;
        }
        if !idle.is_empty() {
            return Seen::AllEnded;
        }
        let used_at = Duration::from_millis(self.used_at.load(Ordering::Relaxed));
        Seen::Unused(self.began.elapsed().saturating_sub(used_at))
    }

    fn streams(&self) -> MutexGuard<'_, HashMap<u64, Weak<dyn Stream>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        let connection = &self.0;
        let now = u64::try_from(connection.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        connection.used_at.store(now, Ordering::Relaxed);
        connection.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.connection.streams().remove(&self.number);
    }
}

/// What a request brings of its connection: the connection itself, and what else its listener knows of it, which is
/// an extension of the request by itself.
#[derive(Clone)]
pub struct Arrived {
    connection: Arc<Connection>,
    known: Arc<dyn Fn(&mut http::Extensions) + Send + Sync>,
}

impl fmt::Debug for Arrived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.connection.fmt(f)
    }
}

impl Arrived {
    pub(super) fn new<I: Clone + Send + Sync + 'static>(
        connection: &Arc<Connection>,
        info: I,
    ) -> Self {
        let known = move |extensions: &mut http::Extensions| {
            extensions.insert(info.clone());
        };
        Self { connection: Arc::clone(connection), known: Arc::new(known) }
    }

    /// Takes it out of a request's extensions, and puts there what it brings. Answers the connection.
    pub fn unpack(extensions: &mut http::Extensions) -> Option<Arc<Connection>> {
        let arrived = extensions.remove::<Self>()?;
        (arrived.known)(extensions);
        Some(arrived.connection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Idle for so long, and the call that it holds.
    struct Idle(Duration, Mutex<Option<OpenCall>>);

    impl Stream for Idle {
        fn idle_for(&self) -> Duration {
            self.0
        }

        fn end(&self) {
            self.1.lock().unwrap().take();
        }

        fn untold_for(&self) -> Option<Duration> {
            self.1.lock().unwrap().is_none().then_some(self.0)
        }
    }

    const LIMIT: Duration = Duration::from_secs(10);

    fn stream(connection: &Arc<Connection>, idle: Duration) -> (Arc<dyn Stream>, Watched) {
        let call = Mutex::new(Some(connection.begin()));
        let stream: Arc<dyn Stream> = Arc::new(Idle(idle, call));
        let watched = connection.watch(Arc::downgrade(&stream));
        (stream, watched)
    }

    #[test]
    fn a_stream_that_is_idle_is_ended_and_one_that_is_not_is_kept() {
        let connection = Connection::new();
        let new = stream(&connection, LIMIT / 2);
        assert_eq!(connection.end_idle(LIMIT), Seen::InUse);
        let old = stream(&connection, LIMIT);
        assert_eq!(connection.end_idle(LIMIT), Seen::InUse, "the old one ended, the new is there");
        assert_eq!(connection.calls.load(Ordering::Relaxed), 1);
        drop(old);
        assert_eq!(connection.end_idle(LIMIT / 2), Seen::AllEnded);
        drop(new);
        assert!(matches!(connection.end_idle(LIMIT), Seen::Unused(time) if time < LIMIT));
        assert!(connection.streams().is_empty());
    }

    #[test]
    fn a_stream_that_cannot_be_told_of_its_end_ends_its_connection_whatever_else_is_in_use() {
        let connection = Connection::new();
        let _used = stream(&connection, Duration::ZERO);
        let shut = stream(&connection, LIMIT);
        assert_eq!(connection.end_idle(LIMIT), Seen::InUse);
        assert_eq!(connection.end_idle(LIMIT), Seen::Untold);
        drop(shut);
        assert_eq!(connection.end_idle(LIMIT), Seen::InUse);
    }

    #[test]
    fn what_the_listener_knows_of_a_connection_is_an_extension_of_its_requests() {
        let connection = Connection::new();
        let mut extensions = http::Extensions::new();
        extensions.insert(Arrived::new(&connection, "what is known"));
        let unpacked = Arrived::unpack(&mut extensions).unwrap();
        assert_eq!(unpacked.name(), connection.name());
        assert_eq!(extensions.get(), Some(&"what is known"));
        assert!(Arrived::unpack(&mut extensions).is_none());
    }
}
