//! Attacks on a server, each what a client does that no well-made client does.
//!
//! They run in a process of their own, on one thread: on a machine with two cores an attack takes one of them at the
//! most. They come from another address than the well-behaved client. Where an attack needs somebody's word, it has
//! the token of a caller of other pools.

mod calls;
mod floods;
mod frames;
mod idle;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use clap::{Args, ValueEnum};
use rustls::ClientConfig;
use serde::Serialize;
use tokio::{io::AsyncReadExt as _, net::TcpStream};
use tokio_rustls::client::TlsStream;

use crate::{
    process,
    report::progress,
    secure::{self, Target, trusting},
};

/// Where attacks come from.
const FROM: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
/// Before a connection that was closed is opened again.
const PAUSE: Duration = Duration::from_millis(20);
/// Longer than any attack lasts.
const ALWAYS: Duration = Duration::from_secs(24 * 3600);
/// How often it is told how much was done.
const TOLD_EVERY: Duration = Duration::from_millis(500);
/// What is told begins with this.
pub(crate) const DONE: &str = "attacked ";

/// Pools of the attacker's caller: of many accounts, of accounts with long labels, and many of one account each.
pub(crate) const LARGE_POOL: &str = "other-large";
pub(crate) const FAT_POOL: &str = "other-fat";
pub(crate) const POOLS: usize = 5_000;

pub(crate) fn small_pool(number: usize) -> String {
    format!("other-{:04}", number % POOLS)
}

/// What is done to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Attack {
    Silent,
    SlowPrefaces,
    SlowHeaders,
    RapidReset,
    Continuation,
    Ping,
    Settings,
    EmptyData,
    LargeHeaders,
    Unread,
    LargeMessages,
    Explain,
    Pools,
    BadTokens,
    HalfHandshakes,
    Metrics,
}

impl Attack {
    /// What it is, for a reader.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Silent => "2,000 silent connections, half of them with TLS",
            Self::SlowPrefaces => "500 prefaces, a byte every half second",
            Self::SlowHeaders => "500 blocks of headers, a byte every half second",
            Self::RapidReset => "rapid reset, 3 connections",
            Self::Continuation => "CONTINUATION without end",
            Self::Ping => "PING without end",
            Self::Settings => "SETTINGS without end",
            Self::EmptyData => "empty DATA without end",
            Self::LargeHeaders => "header lists of 1 MB",
            Self::Unread => "lists of large accounts that are never read, 800 streams",
            Self::LargeMessages => "messages of 4 MiB, and 64 unfinished ones of 1 MiB",
            Self::Explain => "ExplainAcquire at 100/s, each cancelled after 50 ms",
            Self::Pools => "calls at 500/s over 5,000 pools",
            Self::BadTokens => "10,000 bad tokens a second",
            Self::HalfHandshakes => "500 TLS handshakes a second that stop half-way",
            Self::Metrics => "/metrics over 8 connections, after calls in 5,000 pools",
        }
    }

    /// Of what it counts how many it did.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Silent | Self::SlowPrefaces | Self::SlowHeaders => "connections",
            Self::RapidReset => "resets",
            Self::Continuation
            | Self::Ping
            | Self::Settings
            | Self::EmptyData
            | Self::LargeHeaders => "MB",
            Self::Unread | Self::Explain | Self::Pools | Self::BadTokens => "calls",
            Self::LargeMessages => "messages",
            Self::HalfHandshakes => "handshakes",
            Self::Metrics => "answers",
        }
    }
}

/// Whom to attack, and how.
#[derive(Args, Clone, Debug)]
pub(crate) struct AttackArgs {
    attack: Attack,
    #[arg(long)]
    addr: SocketAddr,
    #[arg(long)]
    admin: SocketAddr,
    #[arg(long)]
    ca_file: PathBuf,
    /// Of a caller of pools that are named `other-…`.
    #[arg(long)]
    token: String,
    /// Of one who may read the metrics.
    #[arg(long)]
    metrics_token: String,
}

/// What an attack needs.
struct Attacker {
    args: AttackArgs,
    http2: Arc<ClientConfig>,
    http1: Arc<ClientConfig>,
    done: AtomicU64,
}

/// Attacks until standard input ends.
pub(crate) async fn run(args: &AttackArgs) -> anyhow::Result<()> {
    process::allow_many_files();
    let attacker = Arc::new(Attacker {
        args: args.clone(),
        http2: trusting(&args.ca_file, "h2")?,
        http1: trusting(&args.ca_file, "http/1.1")?,
        done: AtomicU64::new(0),
    });
    let told = Arc::clone(&attacker);
    let tell = async move {
        loop {
            tokio::time::sleep(TOLD_EVERY).await;
            progress(&format!("{DONE}{}", told.done.load(Ordering::Relaxed)));
        }
    };
    let (ended, has_ended) = tokio::sync::oneshot::channel::<()>();
    std::thread::spawn(move || {
        let _ = std::io::Read::read(&mut std::io::stdin(), &mut [0]);
        drop(ended);
    });
    tokio::select! {
        done = attacker.attack() => done,
        () = tell => Ok(()),
        _ = has_ended => Ok(()),
    }
}

impl Attacker {
    async fn attack(self: &Arc<Self>) -> anyhow::Result<()> {
        match self.args.attack {
            Attack::Silent => idle::silent(self).await,
            Attack::SlowPrefaces => idle::slow_prefaces(self).await,
            Attack::SlowHeaders => idle::slow_headers(self).await,
            Attack::HalfHandshakes => idle::half_handshakes(self).await,
            Attack::RapidReset => floods::rapid_reset(self).await,
            Attack::Continuation
            | Attack::Ping
            | Attack::Settings
            | Attack::EmptyData
            | Attack::LargeHeaders => floods::frames(self).await,
            Attack::Unread => calls::unread(self).await,
            Attack::LargeMessages => calls::large_messages(self).await,
            Attack::Explain => calls::explain(self).await,
            Attack::Pools => calls::pools(self).await,
            Attack::BadTokens => calls::bad_tokens(self).await,
            Attack::Metrics => calls::metrics(self).await,
        }
    }

    fn count(&self, done: u64) {
        self.done.fetch_add(done, Ordering::Relaxed);
    }

    async fn tcp(&self) -> anyhow::Result<TcpStream> {
        Ok(secure::tcp(FROM, self.args.addr).await?)
    }

    async fn tls(&self) -> anyhow::Result<TlsStream<TcpStream>> {
        secure::tls(&self.http2, self.tcp().await?).await
    }

    /// A gRPC client's way to the server.
    fn target(&self) -> Target {
        Target {
            url: format!("https://{}", self.args.addr),
            tls: Some(Arc::clone(&self.http2)),
            bearer: Some(self.args.token.clone()),
            from: FROM,
        }
    }

    /// Does the same over and over, so many times beside each other. What fails is done again: the server may close a
    /// connection at any time.
    async fn over_and_over<F: Future<Output = anyhow::Result<()>> + Send + 'static>(
        self: &Arc<Self>,
        beside: usize,
        what: impl Fn(Arc<Self>, usize) -> F + Clone + Send + 'static,
    ) -> anyhow::Result<()> {
        let mut running = tokio::task::JoinSet::new();
        for number in 0..beside {
            let (attacker, what) = (Arc::clone(self), what.clone());
            running.spawn(async move {
                loop {
                    let _ = what(Arc::clone(&attacker), number).await;
                    tokio::time::sleep(PAUSE).await;
                }
            });
        }
        while running.join_next().await.is_some() {}
        Ok(())
    }
}

/// Waits until the server closes the connection. What it says meanwhile is dropped.
async fn until_closed(mut stream: impl tokio::io::AsyncRead + Unpin) {
    let mut bytes = [0; 4096];
    while stream.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
}
