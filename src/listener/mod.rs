//! The listening end: accepts connections, bounds how many there are, and closes those that do not go on.
//!
//! hyper has no limit on the time that a client takes for HTTP/2's preface or for a block of headers, and tonic
//! none on connections. Both are here, between the socket (or TLS) and hyper.

pub mod address;
mod frames;
mod guarded;
pub mod http1;
mod peer;
pub mod tls;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{Stream, stream};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};

use self::tls::{Link, Tls};
pub use self::{
    guarded::Guarded,
    peer::{Peer, PeerNames, name_peer},
};

/// The most connections, where as many files may be open.
const MOST: u64 = 10_000;
/// Open files that are left to all else but connections from clients and to the provider: the database, logs.
const OTHER_FILES: u64 = 128;
/// How long nothing is accepted after an error such as that too many files are open.
const PAUSE: Duration = Duration::from_millis(100);
/// The least time between two warnings of a kind.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// How many connections there may be.
#[derive(Clone, Debug)]
pub struct ConnectionLimit {
    free: Arc<Semaphore>,
    size: usize,
    name: &'static str,
}

impl ConnectionLimit {
    /// For at most `size` connections. `name` is what they are called in warnings and metrics.
    pub fn new(size: usize, name: &'static str) -> Self {
        Self { free: Arc::new(Semaphore::new(size)), size, name }
    }

    /// As many as the process may have open files, up to a bound: half of them, because a call that waits for the
    /// provider has a connection too.
    pub fn of_open_files(name: &'static str) -> Self {
        let files = raise_open_files().unwrap_or(1024);
        let size = (files.saturating_sub(OTHER_FILES) / 2).clamp(16, MOST);
        Self::new(usize::try_from(size).unwrap_or(16), name)
    }

    /// How many connections there may be.
    pub fn size(&self) -> usize {
        self.size
    }
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
    size: usize,
    open: metrics::Gauge,
}

impl ConnectionPermit {
    /// Whether more than half of the connections are taken.
    fn is_crowded(&self) -> bool {
        self.permit.semaphore().available_permits() < self.size / 2
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.open.decrement(1.0);
    }
}

/// Accepts connections for ever, each with a permit. One for which there is none is closed at once,
/// so that its client hears of it and goes elsewhere.
#[derive(Debug)]
pub struct Accepts {
    listener: TcpListener,
    limit: ConnectionLimit,
    full: Warning,
    failing: Warning,
}

impl Accepts {
    /// From `listener`, as many at once as the limit allows.
    pub fn new(listener: TcpListener, limit: ConnectionLimit) -> Self {
        Self { listener, limit, full: Warning::default(), failing: Warning::default() }
    }

    /// The next connection.
    pub async fn next(&mut self) -> (TcpStream, ConnectionPermit) {
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    self.failing.say(|times| {
                        tracing::warn!(
                            listener = self.limit.name, %error, times,
                            "connections cannot be accepted; where too many files are open, allow \
                             the process more (ulimit -n)"
                        );
                    });
                    // The connection is still there: without a pause this would be tried without end.
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            if let Ok(permit) = Arc::clone(&self.limit.free).try_acquire_owned() {
                // An answer that waits for more to send would only be late; without it, it works too.
                let _ = stream.set_nodelay(true);
                let open = metrics::gauge!("holdfast_connections", "listener" => self.limit.name);
                open.increment(1.0);
                return (stream, ConnectionPermit { permit, size: self.limit.size, open });
            }
            let refused = metrics::counter!("holdfast_connections_refused_total", "listener" => self.limit.name);
            refused.increment(1);
            self.full.say(|times| {
                tracing::warn!(
                    listener = self.limit.name,
                    most = self.limit.size,
                    times,
                    "a connection was closed at once: the limit of open connections is reached; close idle ones, \
                     use fewer in each client, or allow the process more files (ulimit -n)"
                );
            });
        }
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
}
