//! A proxy that goes wrong on demand, between a server and its database, its provider or its
//! callers.
//!
//! It knows enough of what passes to choose one message out of many: the reply to a certain
//! statement's commit, the answer to a certain request. Every fault counts how often it happened, so
//! that a test can tell a fault that was survived from one that never came.

pub(crate) mod bytes;
pub(crate) mod http;
mod messages;
pub(crate) mod postgres;
mod rules;

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf},
    net::{TcpListener, TcpStream, UnixStream},
    sync::watch,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use rules::{Fired, When};

/// Where a proxy leads to.
#[derive(Clone, Debug)]
pub(crate) enum Upstream {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// A proxy that runs until it is dropped. It has a thread of its own, so that it goes on while a
/// test's own thread is blocked, as it is while a world is torn down.
pub(crate) struct Proxy<P> {
    addr: SocketAddr,
    gate: Arc<Gate>,
    protocol: Arc<P>,
    thread: Option<thread::JoinHandle<()>>,
}

/// What a proxy understands of what passes through it.
pub(crate) trait Protocol: Send + Sync + 'static {
    /// Serves a connection. It is cut when this returns.
    fn serve(&self, link: Link) -> impl Future<Output = Result<(), Ended>> + Send;
}

/// A connection ended, by its ends or by a fault.
#[derive(Debug)]
pub(crate) struct Ended;

impl From<io::Error> for Ended {
    fn from(_: io::Error) -> Self {
        Self
    }
}

/// What holds for all connections of a proxy.
#[derive(Debug)]
struct Gate {
    upstream: Mutex<Upstream>,
    refuses: AtomicBool,
    frozen: watch::Sender<bool>,
    open: Mutex<Open>,
    stop: CancellationToken,
}

/// The connections that are open: what cuts them, and what tells when they have ended.
#[derive(Debug)]
struct Open {
    cut: CancellationToken,
    stranded: CancellationToken,
    tasks: TaskTracker,
}

impl Open {
    fn none(stop: &CancellationToken) -> Self {
        Self {
            cut: stop.child_token(),
            stranded: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

type Stream = Box<dyn Io>;

/// A connection through the proxy: the halves of the connection to the client and of the one to the
/// server.
pub(crate) struct Link {
    pub(crate) from_client: Reader,
    pub(crate) to_client: Writer,
    pub(crate) from_server: Reader,
    pub(crate) to_server: Writer,
}

pub(crate) struct Reader(ReadHalf<Stream>);

pub(crate) struct Writer {
    half: WriteHalf<Stream>,
    frozen: watch::Receiver<bool>,
}

impl Reader {
    /// Adds what comes next to `bytes`. False at the end.
    async fn read(&mut self, bytes: &mut Vec<u8>) -> Result<bool, Ended> {
        Ok(self.0.read_buf(bytes).await? > 0)
    }

    /// Throws away what comes, to the end.
    async fn ignore(&mut self) -> Result<(), Ended> {
        tokio::io::copy(&mut self.0, &mut tokio::io::sink()).await?;
        Ok(())
    }
}

impl Writer {
    /// Passes bytes on, once they may flow.
    async fn write(&mut self, bytes: &[u8]) -> Result<(), Ended> {
        self.frozen.wait_for(|frozen| !frozen).await.map_err(|_| Ended)?;
        self.half.write_all(bytes).await?;
        Ok(())
    }

    /// Says that nothing more comes.
    async fn finish(&mut self) -> Result<(), Ended> {
        self.frozen.wait_for(|frozen| !frozen).await.map_err(|_| Ended)?;
        self.half.shutdown().await?;
        Ok(())
    }
}

impl<P: Protocol> Proxy<P> {
    fn start(protocol: P, upstream: Upstream) -> Self {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let addr = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let gate = Arc::new(Gate {
            upstream: Mutex::new(upstream),
            refuses: AtomicBool::new(false),
            frozen: watch::Sender::new(false),
            open: Mutex::new(Open::none(&stop)),
            stop,
        });
        let protocol = Arc::new(protocol);
        let accepting = accept(Arc::clone(&gate), Arc::clone(&protocol), listener);
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(accepting);
        };
        let thread = thread::Builder::new().name("proxy".to_owned()).spawn(run).unwrap();
        Self { addr, gate, protocol, thread: Some(thread) }
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How many connections are open.
    pub(crate) fn connections(&self) -> usize {
        self.gate.open.lock().unwrap_or_else(PoisonError::into_inner).tasks.len()
    }

    /// Cuts the connections that are open. When this returns, nothing passes over them any more.
    pub(crate) async fn cut_all(&self) {
        let cut = {
            let mut open = self.gate.open.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *open, Open::none(&self.gate.stop))
        };
        cut.cut.cancel();
        cut.tasks.close();
        cut.tasks.wait().await;
    }

    /// Lets nothing pass any more over the connections that are open, and tells nobody: as when a host
    /// is gone and another has its address. New connections are not concerned.
    pub(crate) fn strand(&self) {
        let mut open = self.gate.open.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *open, Open::none(&self.gate.stop)).stranded.cancel();
    }

    /// Closes new connections as soon as they are made.
    pub(crate) fn refuse(&self) {
        self.gate.refuses.store(true, Ordering::SeqCst);
    }

    /// Takes new connections again.
    pub(crate) fn accept(&self) {
        self.gate.refuses.store(false, Ordering::SeqCst);
    }

    /// Lets no byte pass. Connections stay, and new ones are taken.
    pub(crate) fn freeze(&self) {
        self.gate.frozen.send_replace(true);
    }

    /// Lets bytes pass again, those that were held back first.
    pub(crate) fn thaw(&self) {
        self.gate.frozen.send_replace(false);
    }

    /// Leads new connections elsewhere. Those that are open stay where they are.
    pub(crate) fn lead_to(&self, upstream: Upstream) {
        *self.gate.upstream.lock().unwrap_or_else(PoisonError::into_inner) = upstream;
    }
}

impl<P> Drop for Proxy<P> {
    fn drop(&mut self) {
        self.gate.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept<P: Protocol>(gate: Arc<Gate>, protocol: Arc<P>, listener: std::net::TcpListener) {
    let listener = TcpListener::from_std(listener).unwrap();
    while let Some(accepted) = gate.stop.run_until_cancelled(listener.accept()).await {
        let Ok((client, _)) = accepted else { continue };
        if gate.refuses.load(Ordering::SeqCst) {
            continue;
        }
        let _ = client.set_nodelay(true);
        let (cut, stranded, tasks) = {
            let open = gate.open.lock().unwrap_or_else(PoisonError::into_inner);
            (open.cut.clone(), open.stranded.clone(), open.tasks.clone())
        };
        let (gate, protocol) = (Arc::clone(&gate), Arc::clone(&protocol));
        let serve = async move {
            if let Ok(server) = connect(&gate).await {
                let link = gate.link(Box::new(client), server);
                let serve = std::pin::pin!(protocol.serve(link));
                tokio::select! {
                    biased;
                    // Kept, and never looked at again.
                    () = stranded.cancelled() => gate.stop.cancelled().await,
                    _ = serve => {}
                }
            }
        };
        tasks.spawn(async move { cut.run_until_cancelled(serve).await });
    }
}

async fn connect(gate: &Gate) -> io::Result<Stream> {
    let upstream = gate.upstream.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(match upstream {
        Upstream::Tcp(addr) => {
            let stream = TcpStream::connect(addr).await?;
            stream.set_nodelay(true)?;
            Box::new(stream)
        }
        Upstream::Unix(path) => Box::new(UnixStream::connect(Path::new(&path)).await?),
    })
}

impl Gate {
    fn link(&self, client: Stream, server: Stream) -> Link {
        let writer = |half| Writer { half, frozen: self.frozen.subscribe() };
        let (from_client, to_client) = tokio::io::split(client);
        let (from_server, to_server) = tokio::io::split(server);
        Link {
            from_client: Reader(from_client),
            to_client: writer(to_client),
            from_server: Reader(from_server),
            to_server: writer(to_server),
        }
    }
}
