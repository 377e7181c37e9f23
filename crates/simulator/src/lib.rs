//! A provider for demonstrations, tests and load, served over real HTTP: the contract that Holdfast calls, or a fake of
//! a real API, with a durable ledger and faults on demand.
//!
//! It shares no code with Holdfast, so that a mistake in one shows as a difference to the other.
//!
//! | file | what |
//! |---|---|
//! | `api` | the paths, and the bodies and logins of each API |
//! | `call` | a call: read once, and answered when the ledger has what is answered |
//! | `request` | how a request for a redemption is executed, and where a fault strikes |
//! | `reply`, `shared` | what is answered, and what all requests share |
//! | `book` | what was asked, and what came of it: the provider's rules |
//! | `ledger` | the book on disk: synced before anything is answered |
//! | `cards`, `logins` | which codes are worth what, and who may log in |
//! | `vault` | codes in the ledger, for APIs that tell them again |
//! | `faults` | what goes wrong, how often |
//! | `webhooks` | calls that tell the customer what has ended |
//! | `cut` | connections that can be cut off |

mod api;
mod args;
mod book;
mod call;
mod cards;
mod cut;
pub mod faults;
pub mod ledger;
mod logins;
mod reply;
mod request;
mod shared;
mod vault;
mod webhooks;

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use tokio::{
    net::{TcpListener, TcpSocket},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

pub use api::Api;
pub use args::SimulatorArgs;
use shared::Shared;

/// How long requests under way may take when the simulator stops.
const DRAIN: Duration = Duration::from_secs(2);
/// How many connections may wait to be accepted; the kernel may allow fewer. Thousands of callers may
/// connect within a moment, and Linux may reset a connection that found no room after a request was
/// written on it: a doubt that nobody asked for.
const BACKLOG: u32 = 4096;

/// A simulator that is running. It stops, abruptly, when this is dropped.
pub struct Simulator {
    addr: SocketAddr,
    shared: Arc<Shared>,
    /// Refuses new connections, and lets requests under way finish.
    stopping: CancellationToken,
    /// Cuts every connection.
    cut: CancellationToken,
    server: JoinHandle<()>,
}

impl Simulator {
    /// Reads the ledger back, binds, and serves from its own task.
    pub async fn start(args: &SimulatorArgs) -> anyhow::Result<Self> {
        let shared = Shared::open(args)?;
        let listener = listen(args.listen)
            .with_context(|| format!("the simulator cannot listen on {}", args.listen))?;
        let addr = listener.local_addr().context("the simulator's address cannot be read")?;
        let (stopping, cut) = (CancellationToken::new(), CancellationToken::new());
        let service = api::router(shared.clone(), args.api)
            .into_make_service_with_connect_info::<cut::Connection>();
        let served = axum::serve(cut::Listener::new(listener, cut.clone()), service)
            .with_graceful_shutdown(stopping.clone().cancelled_owned());
        let server = tokio::spawn(async move {
            if let Err(error) = served.await {
                tracing::error!(%error, "the simulator stopped serving");
            }
        });
        Ok(Self { addr, shared, stopping, cut, server })
    }

    /// Where it serves.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The base URL to give to Holdfast.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Serves until `shutdown`, or until the ledger cannot be written, which is an error.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        let failed = tokio::select! {
            () = shutdown => None,
            why = self.shared.ledger.failure() => Some(why),
        };
        self.stop().await?;
        match failed {
            Some(why) => bail!("the ledger cannot be written: {why}"),
            None => Ok(()),
        }
    }

    /// What goes wrong from now on.
    pub fn set_faults(&self, faults: faults::Faults) -> anyhow::Result<()> {
        self.shared.set_faults(faults)
    }

    /// How many inquiries have come since it was started.
    pub fn inquiries(&self) -> u64 {
        self.shared.inquiries()
    }

    /// Takes no new connection, gives requests under way a moment, and closes the ledger.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.stopping.cancel();
        if timeout(DRAIN, &mut self.server).await.is_err() {
            tracing::debug!("cutting requests that took too long to finish");
        }
        self.kill().await
    }

    /// Cuts every connection at once, as a crash would, and lets go of the ledger. What was not
    /// yet written is lost, as is the answer to it.
    pub async fn kill(self) -> anyhow::Result<()> {
        self.cut.cancel();
        self.server.abort();
        let shared = self.shared.clone();
        tokio::task::spawn_blocking(move || shared.ledger.close())
            .await
            .context("the ledger's writer did not end")
    }
}

/// Listens with room for callers who all connect at once.
fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // It starts again on the address that it had, whatever connections are still ending there.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.cut.cancel();
        self.server.abort();
    }
}
