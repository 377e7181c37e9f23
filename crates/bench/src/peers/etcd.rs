//! etcd's locks: one node that syncs, where it is installed.

use std::{
    env,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use futures_util::future::BoxFuture;
use tonic::transport::{Channel, Endpoint};

use self::pb::{
    etcdserverpb::{LeaseGrantRequest, lease_client::LeaseClient},
    v3lockpb::{LockRequest, UnlockRequest, lock_client::LockClient},
};
use super::{Peer, holdfast::IN_FLIGHT};
use crate::{
    args::Args,
    ground::Ground,
    load::{Caller, closed_loop},
    process::{Process, START},
    report::progress,
};

/// What is called of etcd's contract.
#[allow(missing_docs, clippy::all, unreachable_pub, reason = "generated")]
mod pb {
    pub mod etcdserverpb {
        tonic::include_proto!("etcdserverpb");
    }
    pub mod v3lockpb {
        tonic::include_proto!("v3lockpb");
    }
}

/// Connections that the callers share, that are tried. The best number is kept.
const CHANNELS: [usize; 3] = [1, 4, 16];
/// How long the holders' leases last: beyond the whole run.
const LEASE_SECONDS: i64 = 3_600;

/// An etcd that runs, and callers who each have a lease of their own.
pub(crate) struct Etcd {
    name: String,
    channels: Vec<Channel>,
    leases: Vec<i64>,
    _process: Process,
}

/// Where etcd is, if it is installed: by `make bench-peers`, or by the system.
pub(crate) fn program(args: &Args) -> Option<PathBuf> {
    let ours = args.peers.join("etcd/usr/bin");
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders = std::iter::once(ours).chain(env::split_paths(&path));
    folders.find_map(|folder| {
        let program = folder.join("etcd");
        program.is_file().then_some(program)
    })
}

impl Etcd {
    pub(crate) async fn start(
        program: &Path,
        ground: &Ground,
        trial: Duration,
    ) -> anyhow::Result<Self> {
        let (client, peer) = (free_url()?, free_url()?);
        let data_dir = ground.directory().join("etcd");
        let flags = [
            ("name", "bench".to_owned()),
            ("data-dir", data_dir.display().to_string()),
            ("listen-client-urls", client.clone()),
            ("advertise-client-urls", client.clone()),
            ("listen-peer-urls", peer.clone()),
            ("initial-advertise-peer-urls", peer.clone()),
            ("initial-cluster", format!("bench={peer}")),
            ("log-level", "error".to_owned()),
        ];
        let flags: Vec<_> =
            flags.into_iter().map(|(name, value)| format!("--{name}={value}")).collect();
        let program = program.to_str().context("etcd's path is not text")?;
        let mut process = Process::start_on_leash("etcd", program, &flags)?;
        let endpoint = Endpoint::from_shared(client)?.tcp_nodelay(true);
        // A node that has no leader yet refuses.
        let first = process
            .until(START, async |_| {
                let channel = endpoint.connect().await.ok()?;
                grant(&channel).await.ok()?;
                Some(channel)
            })
            .await?;
        let mut channels = vec![first];
        let most = CHANNELS.into_iter().fold(1, usize::max);
        while channels.len() < most {
            channels.push(endpoint.connect().await?);
        }
        let mut leases = Vec::with_capacity(IN_FLIGHT);
        for _ in 0..IN_FLIGHT {
            leases.push(grant(&channels[0]).await?);
        }
        let mut etcd = Self { name: String::new(), channels, leases, _process: process };
        let mut best = (0.0, 1);
        for count in CHANNELS {
            let per_second = closed_loop(etcd.lockers(count), trial).await?;
            progress(&format!("  etcd over {count} connections: {per_second:.0}/s"));
            if per_second > best.0 {
                best = (per_second, count);
            }
        }
        etcd.channels.truncate(best.1);
        etcd.name = format!("etcd Lock+Unlock, {} connections", best.1);
        Ok(etcd)
    }

    /// Callers over some of the connections.
    fn lockers(&self, channels: usize) -> Vec<Locker> {
        let channels = self.channels.iter().take(channels).cycle();
        let numbered = self.leases.iter().zip(channels).enumerate();
        let lockers = numbered.map(|(number, (lease, channel))| {
            let name = format!("account-{number:08}").into_bytes();
            Locker { client: LockClient::new(channel.clone()), name, lease: *lease }
        });
        lockers.collect()
    }
}

async fn grant(channel: &Channel) -> anyhow::Result<i64> {
    let request = LeaseGrantRequest { ttl: LEASE_SECONDS, id: 0 };
    Ok(LeaseClient::new(channel.clone()).lease_grant(request).await?.into_inner().id)
}

/// A URL on this machine that nobody listens at.
fn free_url() -> anyhow::Result<String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(format!("http://{}", listener.local_addr()?))
}

/// Locks a name that nobody else wants, and unlocks it.
struct Locker {
    client: LockClient<Channel>,
    name: Vec<u8>,
    lease: i64,
}

impl Caller for Locker {
    async fn once(&mut self) -> anyhow::Result<()> {
        let request = LockRequest { name: self.name.clone(), lease: self.lease };
        let key = self.client.lock(request).await?.into_inner().key;
        self.client.unlock(UnlockRequest { key }).await?;
        Ok(())
    }
}

impl Peer for Etcd {
    fn name(&self) -> &str {
        &self.name
    }

    fn run_for(&mut self, lasting: Duration) -> BoxFuture<'_, anyhow::Result<f64>> {
        Box::pin(closed_loop(self.lockers(self.channels.len()), lasting))
    }
}
