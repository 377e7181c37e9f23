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
use super::{
    Peer,
    holdfast::{CONNECTIONS, IN_FLIGHT},
};
use crate::{
    args::Args,
    ground::Ground,
    load::{Caller, closed_loop},
    process::{Process, START},
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

/// How long the holders' leases last: beyond the whole run.
const LEASE_SECONDS: i64 = 3_600;

/// An etcd that runs, and callers who each have a lease of their own.
pub(crate) struct Etcd {
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
    pub(crate) async fn start(program: &Path, ground: &Ground) -> anyhow::Result<Self> {
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
        while channels.len() < CONNECTIONS {
            channels.push(endpoint.connect().await?);
        }
        let mut leases = Vec::with_capacity(IN_FLIGHT);
        for _ in 0..IN_FLIGHT {
            leases.push(grant(&channels[0]).await?);
        }
        Ok(Self { channels, leases, _process: process })
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
        "etcd Lock+Unlock"
    }

    fn turn(&mut self, lasting: Duration) -> BoxFuture<'_, anyhow::Result<f64>> {
        let channels = self.channels.iter().cycle();
        let lockers =
            self.leases.iter().zip(channels).enumerate().map(|(number, (lease, channel))| {
                let name = format!("account-{number:08}").into_bytes();
                Locker { client: LockClient::new(channel.clone()), name, lease: *lease }
            });
        Box::pin(closed_loop(lockers.collect(), lasting))
    }
}
