//! The listening end: accepts connections, bounds how many there are, and closes those that do not go on.
//!
//! hyper has no limit on the time that a client takes for HTTP/2's preface or for a block of headers, and tonic
//! none on connections. Both are here, between the socket (or TLS) and hyper.

pub mod address;
pub mod connection;
mod frames;
mod guarded;
pub mod http1;
mod peer;
pub mod tls;

use std::{
    collections::HashMap,
    fs::File,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{Stream, stream};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::timeout,
};

use self::tls::{Link, Tls};
pub use self::{
    guarded::Guarded,
    peer::{Peer, PeerNames},
};

/// The most connections, where as many files may be open.
const MOST: u64 = 10_000;
/// Open files that are left to all else but connections from clients and to the provider: the database, logs.
const OTHER_FILES: u64 = 128;
/// How long nothing is accepted after an error such as that too many files are open.
const PAUSE: Duration = Duration::from_millis(100);
/// The least time between two warnings of a kind.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// What a connection has to keep to.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// How long it may be without a call, where there are many connections.
    pub idle: Duration,
    /// How long a stream may neither send nor take anything.
    pub stream_idle: Duration,
    /// How many streams it may reset in a second.
    pub resets_per_second: u32,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(5 * 60),
            stream_idle: Duration::from_secs(10 * 60),
            resets_per_second: 1024,
        }
    }
}

/// How many connections there may be. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ConnectionLimit {
    free: Arc<Semaphore>,
    size: usize,
    /// The most from one address.
    of_address: usize,
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
    rules: Rules,
    name: &'static str,
    trouble: Trouble,
}

impl ConnectionLimit {
    /// For at most `size` connections. `name` is what they are called in warnings and metrics.
    pub fn new(size: usize, name: &'static str) -> Self {
        Self {
            free: Arc::new(Semaphore::new(size)),
            size,
            of_address: size,
            by_address: Arc::default(),
            rules: Rules::default(),
            name,
            trouble: Trouble::default(),
        }
    }

    /// As many as the process may have open files, up to a bound: half of them, because a call that waits for the
    /// provider has a connection too. Fewer where `most` says so.
    pub fn of_open_files(most: Option<usize>, name: &'static str) -> Self {
        let files = raise_open_files().unwrap_or(1024);
        let size = (files.saturating_sub(OTHER_FILES) / 2).clamp(16, MOST);
        let size = usize::try_from(size).unwrap_or(16);
        Self::new(most.unwrap_or(size).min(size), name)
    }

    /// At most so many of one address; half of all where that is not said.
    pub fn for_each_address(self, most: Option<usize>) -> Self {
        let of_address = most.unwrap_or(self.size.div_ceil(2)).clamp(1, self.size);
        Self { of_address, ..self }
    }

    /// What its connections have to keep to.
    pub fn with_rules(self, rules: Rules) -> Self {
        Self { rules, ..self }
    }

    /// How many connections there may be.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Whether connections could be accepted of late.
    pub fn trouble(&self) -> &Trouble {
        &self.trouble
    }

    /// A permit for a connection from an address, or why there is none.
    fn permit(&self, address: IpAddr) -> Result<ConnectionPermit, &'static str> {
        let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() else { return Err("all") };
        let mut by_address = lock(&self.by_address);
        let open = by_address.entry(address).or_default();
        if *open >= self.of_address {
            return Err("address");
        }
        *open += 1;
        drop(by_address);
        let open = metrics::gauge!("holdfast_connections", "listener" => self.name);
        open.increment(1.0);
        Ok(ConnectionPermit { permit, limit: self.clone(), address, open })
    }
}

/// Whether connections could not be accepted of late. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Trouble(Arc<AtomicU64>);

impl Trouble {
    /// For how long a server that could not accept one says so.
    const TOLD: Duration = Duration::from_secs(5);

    fn note(&self) {
        self.0.store(now_ms(), Ordering::Relaxed);
    }

    /// Whether there was any within the last seconds.
    pub fn is_there(&self) -> bool {
        let at = self.0.load(Ordering::Relaxed);
        at > 0 && Duration::from_millis(now_ms().saturating_sub(at)) < Self::TOLD
    }
}

/// Milliseconds since the process first asked, and one more.
fn now_ms() -> u64 {
    static BEGAN: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    u64::try_from(BEGAN.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets the process open as many files as its user may allow it to. Answers how many.
fn raise_open_files() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum.or(Some(u64::MAX)),
        Err(_) => limit.current.or(Some(u64::MAX)),
    }
}

/// A permit for one connection, until dropped.
#[derive(Debug)]
pub struct ConnectionPermit {
    permit: OwnedSemaphorePermit,
    limit: ConnectionLimit,
    address: IpAddr,
    open: metrics::Gauge,
}

impl ConnectionPermit {
    /// Whether more than half of the connections are taken.
    fn is_crowded(&self) -> bool {
        self.permit.semaphore().available_permits() < self.limit.size / 2
    }

    fn rules(&self) -> Rules {
        self.limit.rules
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.open.decrement(1.0);
        let mut by_address = lock(&self.limit.by_address);
        if let Some(open) = by_address.get_mut(&self.address) {
            *open -= 1;
            if *open == 0 {
                by_address.remove(&self.address);
            }
        }
    }
}

/// Accepts connections for ever, each with a permit. One for which there is none is closed at once,
/// so that its client hears of it and goes elsewhere.
#[derive(Debug)]
pub struct Accepts {
    listener: TcpListener,
    limit: ConnectionLimit,
    /// An open file that makes room for one connection where too many files are open.
    spare: Option<File>,
    /// Whether that one is served, and not closed.
    serves_last: bool,
    full: Warning,
    failing: Warning,
}

impl Accepts {
    /// From `listener`, as many at once as the limit allows.
    pub fn new(listener: TcpListener, limit: ConnectionLimit) -> Self {
        let (full, failing) = (Warning::default(), Warning::default());
        Self { listener, limit, spare: spare_file(), serves_last: false, full, failing }
    }

    /// Serves a connection too that is accepted when no file can be opened for it. Of few that come, such as an
    /// orchestrator's, which asks how the server is.
    pub fn with_the_last(self) -> Self {
        Self { serves_last: true, ..self }
    }

    /// The next connection.
    pub async fn next(&mut self) -> (TcpStream, ConnectionPermit) {
        loop {
            self.spare = self.spare.take().or_else(spare_file);
            let (stream, peer) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => match self.accept_without_a_file(&error).await {
                    Some(accepted) => accepted,
                    None => continue,
                },
            };
            match self.limit.permit(peer.ip()) {
                Ok(permit) => {
                    // An answer that waits for more to send would only be late; without it, it works too.
                    let _ = stream.set_nodelay(true);
                    return (stream, permit);
                }
                Err(of) => self.refuse(of),
            }
        }
    }

    /// What is done when none can be accepted: the spare file makes room for the one that has come, which is closed,
    /// and does not wait for nothing. Without that, this would be tried without end.
    async fn accept_without_a_file(
        &mut self,
        error: &std::io::Error,
    ) -> Option<(TcpStream, SocketAddr)> {
        self.limit.trouble.note();
        self.failing.say(|times| {
            tracing::warn!(
                listener = self.limit.name, %error, times,
                "connections cannot be accepted; where too many files are open, allow \
                 the process more (ulimit -n)"
            );
        });
        if self.spare.take().is_some()
            && let Ok(Ok(accepted)) = timeout(PAUSE, self.listener.accept()).await
        {
            if self.serves_last {
                return Some(accepted);
            }
            self.count_refused("files");
            return None;
        }
        tokio::time::sleep(PAUSE).await;
        None
    }

    fn count_refused(&self, of: &'static str) {
        let listener = self.limit.name;
        let labels = [("listener", listener), ("limit", of)];
        metrics::counter!("holdfast_connections_refused_total", &labels).increment(1);
    }

    fn refuse(&mut self, of: &'static str) {
        self.count_refused(of);
        let limit = &self.limit;
        let most = if of == "address" { limit.of_address } else { limit.size };
        self.full.say(|times| {
            tracing::warn!(
                listener = limit.name,
                of,
                most,
                times,
                "a connection was closed at once: the limit of open connections is reached; close idle ones, \
                 use fewer in each client, or allow the process more files (ulimit -n)"
            );
        });
    }

    /// The connections, for HTTP/2, over TLS where there is any. A handshake does not keep others waiting.
    pub fn into_http2(
        self,
        tls: Option<Tls>,
    ) -> impl Stream<Item = std::io::Result<Guarded<Link>>> {
        let state = (self, tls, JoinSet::new());
        stream::unfold(state, async |(mut accepts, tls, mut handshakes)| {
            let next = loop {
                tokio::select! {
                    (stream, permit) = accepts.next() => match tls.clone() {
                        None => break Guarded::new(Link::plain(stream), permit),
                        Some(tls) => drop(handshakes.spawn(async move {
                            tls.accept(stream).await.map(|link| Guarded::new(link, permit))
                        })),
                    },
                    Some(ended) = handshakes.join_next() => match ended {
                        Ok(Some(guarded)) => break guarded,
                        Ok(None) => {}
                        Err(error) => tracing::error!(%error, "a handshake's task ended"),
                    },
                }
            };
            Some((Ok(next), (accepts, tls, handshakes)))
        })
    }
}

/// An open file, if there may be one more.
fn spare_file() -> Option<File> {
    File::open("/dev/null").ok()
}

/// A warning about what may happen very often, logged now and then.
#[derive(Debug, Default)]
struct Warning {
    logged: Option<Instant>,
    times: u64,
}

impl Warning {
    fn say(&mut self, warn: impl FnOnce(u64)) {
        self.times += 1;
        if self.logged.is_none_or(|logged| logged.elapsed() >= WARN_EVERY) {
            self.logged = Some(Instant::now());
            warn(std::mem::take(&mut self.times));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn a_connection_beyond_the_limit_is_closed_at_once_and_one_that_ends_frees_its_permit() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let mut accepts = Accepts::new(listener, ConnectionLimit::new(2, "test"));
        let connect = async || TcpStream::connect(addr).await.unwrap();
        let (_first, _second) = (connect().await, connect().await);
        let (one, two) = (accepts.next().await, accepts.next().await);
        let mut third = connect().await;
        let next = tokio::spawn(async move { accepts.next().await });
        assert_eq!(third.read(&mut [0; 8]).await.unwrap_or(0), 0, "closed");
        drop(one);
        let _fourth = connect().await;
        next.await.unwrap();
        drop(two);
    }

    #[test]
    fn one_address_has_no_more_than_its_part() {
        let limit = ConnectionLimit::new(5, "test").for_each_address(None);
        let (one, other) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let mut held: Vec<_> = (0..3).map(|_| limit.permit(one).unwrap()).collect();
        assert_eq!(limit.permit(one).unwrap_err(), "address");
        held.extend((0..2).map(|_| limit.permit(other).unwrap()));
        assert_eq!(limit.permit(other).unwrap_err(), "all");
        held.remove(0);
        assert!(limit.permit(one).is_ok());
        held.clear();
        assert!(lock(&limit.by_address).is_empty());
    }
}
