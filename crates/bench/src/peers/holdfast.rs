//! The server that is measured: the real program, and callers of it.

use std::time::Duration;

use anyhow::Context as _;
use futures_util::future::BoxFuture;
use holdfast::rpc::pb::{
    AcquireAccountRequest, LeaseRef, ReleaseAccountRequest,
    redemption_service_client::RedemptionServiceClient,
};
use uuid::Uuid;

use super::Peer;
use crate::{
    ground::Ground,
    load::{Caller, closed_loop},
    postgres::POOL,
    process::{Process, START},
    secure::{Connection, Target},
};

/// Callers who are in flight at once.
pub(crate) const IN_FLIGHT: usize = 256;
/// Connections that they share, as callers in a few processes would.
pub(crate) const CONNECTIONS: usize = 4;

pub(crate) type Client = RedemptionServiceClient<Connection>;

/// A server that runs.
pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) url: String,
    /// Where its metrics are.
    pub(crate) admin: String,
}

impl Server {
    /// Starts a server over a database, which asks nobody who they are.
    pub(crate) async fn start(
        ground: &Ground,
        database_url: &str,
        settings: &[String],
    ) -> anyhow::Result<Self> {
        Self::start_with(ground, database_url, settings, &[]).await
    }

    /// The same, with some variables. They may say that callers are asked who they are.
    pub(crate) async fn start_with(
        ground: &Ground,
        database_url: &str,
        settings: &[String],
        variables_too: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let mut command = ground.holdfast("serve");
        command
            .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .args(["--drain-delay", "0s", "--shutdown-timeout", "1s"])
            .arg("--secret-key-file")
            .arg(ground.key_file())
            .args(settings);
        let mut variables = vec![("HOLDFAST_DATABASE_URL", database_url), ("HOLDFAST_AUTH", "off")];
        variables.extend_from_slice(variables_too);
        let mut process = Process::start("holdfast serve", command, &variables)?;
        let listens = async |output: &str| {
            Some([
                address(output, "listening", "addr")?,
                address(output, "listening", "admin_addr")?,
            ])
        };
        let [addr, admin] = process.until(START, listens).await?;
        Ok(Self { process, url: format!("http://{addr}"), admin })
    }

    pub(crate) async fn clients(&self, count: usize) -> anyhow::Result<Vec<Client>> {
        connect(&self.url, count).await
    }
}

/// The address in the line of a log that has a message.
pub(crate) fn address(output: &str, message: &str, field: &str) -> Option<String> {
    output.lines().find_map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        let addr = line[field].as_str().filter(|_| line["message"] == *message);
        addr.map(str::to_owned)
    })
}

/// Clients, each with a connection of its own.
pub(crate) async fn connect(url: &str, count: usize) -> anyhow::Result<Vec<Client>> {
    connect_to(&Target::plain(url), count).await
}

/// The same, with TLS and as somebody where the target says so.
pub(crate) async fn connect_to(target: &Target, count: usize) -> anyhow::Result<Vec<Client>> {
    let mut clients = Vec::with_capacity(count);
    for _ in 0..count {
        clients.push(RedemptionServiceClient::new(target.connect().await?));
    }
    Ok(clients)
}

/// A request for any account.
pub(crate) fn acquire() -> AcquireAccountRequest {
    AcquireAccountRequest {
        request_id: Uuid::now_v7().to_string(),
        pool_id: POOL.to_owned(),
        holder: "bench".to_owned(),
        ..AcquireAccountRequest::default()
    }
}

pub(crate) fn release(lease: LeaseRef) -> ReleaseAccountRequest {
    ReleaseAccountRequest { lease: Some(lease) }
}

/// Acquires any account.
pub(crate) async fn acquired(client: &mut Client) -> anyhow::Result<LeaseRef> {
    let answer = client.acquire_account(acquire()).await?.into_inner();
    answer.lease.and_then(|lease| lease.r#ref).context("an answer without a lease")
}

/// Acquires an account and releases it.
pub(crate) struct Cycles(pub(crate) Client);

impl Caller for Cycles {
    async fn once(&mut self) -> anyhow::Result<()> {
        let lease = acquired(&mut self.0).await?;
        self.0.release_account(release(lease)).await?;
        Ok(())
    }
}

/// Cycles at a server of the contract: Holdfast, or one that touches nothing.
pub(crate) struct CyclesOverRpc {
    name: &'static str,
    clients: Vec<Client>,
}

impl CyclesOverRpc {
    pub(crate) async fn connect(name: &'static str, url: &str) -> anyhow::Result<Self> {
        Self::connect_to(name, &Target::plain(url)).await
    }

    pub(crate) async fn connect_to(name: &'static str, target: &Target) -> anyhow::Result<Self> {
        Ok(Self { name, clients: connect_to(target, CONNECTIONS).await? })
    }

    pub(crate) fn callers(&self, count: usize) -> Vec<Cycles> {
        self.clients.iter().cycle().take(count).cloned().map(Cycles).collect()
    }
}

impl Peer for CyclesOverRpc {
    fn name(&self) -> &str {
        self.name
    }

    fn run_for(&mut self, lasting: Duration) -> BoxFuture<'_, anyhow::Result<f64>> {
        Box::pin(closed_loop(self.callers(IN_FLIGHT), lasting))
    }
}
