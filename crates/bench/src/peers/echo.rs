//! A server in the same stack that answers the messages of a cycle, and touches nothing: what gRPC costs by
//! itself. It runs as a process of its own, behind the same admission and with the same settings.

use std::{
    io::Read as _,
    net::Ipv4Addr,
    pin::Pin,
    process::Command,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use futures_util::Stream;
use holdfast::{
    access::Authenticator,
    rpc::{
        CONNECTION_WINDOW, STREAM_WINDOW,
        layers::Admission,
        pb::{
            self,
            redemption_service_server::{RedemptionService, RedemptionServiceServer},
        },
    },
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Server, server::TcpIncoming},
};

use crate::{
    process::{Process, START},
    report::progress,
};

/// What it says before its address.
const LISTENING: &str = "echo listens on ";
/// As `holdfast serve` has them.
const MAX_STREAMS: u32 = 4096;
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_RESETS: usize = 256;

/// A server that runs.
pub(crate) struct Echo {
    pub(crate) url: String,
    _process: Process,
}

impl Echo {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("echo");
        let mut process = Process::start("echo", command, &[])?;
        let addr = process
            .until(START, async |output| {
                output.lines().find_map(|line| line.strip_prefix(LISTENING)).map(str::to_owned)
            })
            .await?;
        Ok(Self { url: format!("http://{addr}"), _process: process })
    }
}

/// Serves until standard input ends.
pub(crate) async fn serve() -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    progress(&format!("{LISTENING}{}", listener.local_addr()?));
    let overload = holdfast::admission::Overload::new();
    let admission = Admission::new(overload, Authenticator::off(), CancellationToken::new())?;
    let serving = Server::builder()
        .layer(admission)
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .http2_max_pending_accept_reset_streams(Some(MAX_RESETS))
        .tcp_nodelay(true)
        .add_service(RedemptionServiceServer::new(Answers))
        .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
    tokio::select! {
        served = serving => served.context("echo cannot serve"),
        _ = tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0])) => Ok(()),
    }
}

/// Answers without looking anything up.
struct Answers;

/// An account as Holdfast would answer it, with its lease when it has one.
fn account(lease: Option<pb::Lease>) -> pb::Account {
    let now = Some(prost_types::Timestamp::from(SystemTime::now()));
    let money = || Some(pb::Money { amount_minor: 0, currency_code: "EUR".to_owned() });
    let status = match &lease {
        Some(_) => pb::AccountStatus::Locking,
        None => pb::AccountStatus::Waiting,
    };
    pb::Account {
        pool_id: "bench".to_owned(),
        account_id: "account-00000001".to_owned(),
        status: status.into(),
        login_status: pb::LoginStatus::Active.into(),
        country_code: "DE".to_owned(),
        balance: money(),
        lease,
        create_time: now,
        update_time: now,
        plan_day: 1,
        day_credited: money(),
        paused: Some(false),
        draining: Some(false),
        ..pb::Account::default()
    }
}

fn lease(holder: String) -> pb::Lease {
    let now = Some(prost_types::Timestamp::from(SystemTime::now()));
    pb::Lease {
        r#ref: Some(pb::LeaseRef {
            pool_id: "bench".to_owned(),
            account_id: "account-00000001".to_owned(),
            fencing_token: 1,
        }),
        holder,
        acquire_time: now,
        expire_time: now,
        remaining: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        principal: String::new(),
    }
}

/// What is not part of a cycle.
fn not_served<T>() -> Result<T, Status> {
    Err(Status::unimplemented("no part of a cycle"))
}

#[tonic::async_trait]
impl RedemptionService for Answers {
    type BatchRedeemStream =
        Pin<Box<dyn Stream<Item = Result<pb::BatchRedeemResponse, Status>> + Send>>;
    type WatchRedemptionsStream =
        Pin<Box<dyn Stream<Item = Result<pb::WatchRedemptionsResponse, Status>> + Send>>;

    async fn acquire_account(
        &self,
        request: Request<pb::AcquireAccountRequest>,
    ) -> Result<Response<pb::AcquireAccountResponse>, Status> {
        let lease = lease(request.into_inner().holder);
        let account = Some(account(Some(lease.clone())));
        Ok(Response::new(pb::AcquireAccountResponse { lease: Some(lease), account }))
    }

    async fn release_account(
        &self,
        _: Request<pb::ReleaseAccountRequest>,
    ) -> Result<Response<pb::ReleaseAccountResponse>, Status> {
        Ok(Response::new(pb::ReleaseAccountResponse { account: Some(account(None)) }))
    }

    async fn batch_redeem(
        &self,
        _: Request<Streaming<pb::BatchRedeemRequest>>,
    ) -> Result<Response<Self::BatchRedeemStream>, Status> {
        not_served()
    }

    async fn explain_acquire(
        &self,
        _: Request<pb::ExplainAcquireRequest>,
    ) -> Result<Response<pb::ExplainAcquireResponse>, Status> {
        not_served()
    }

    async fn renew_lease(
        &self,
        _: Request<pb::RenewLeaseRequest>,
    ) -> Result<Response<pb::RenewLeaseResponse>, Status> {
        not_served()
    }

    async fn redeem(
        &self,
        _: Request<pb::RedeemRequest>,
    ) -> Result<Response<pb::RedeemResponse>, Status> {
        not_served()
    }

    async fn redeem_card(
        &self,
        _: Request<pb::RedeemCardRequest>,
    ) -> Result<Response<pb::RedeemCardResponse>, Status> {
        not_served()
    }

    async fn watch_redemptions(
        &self,
        _: Request<pb::WatchRedemptionsRequest>,
    ) -> Result<Response<Self::WatchRedemptionsStream>, Status> {
        not_served()
    }

    async fn await_redemption(
        &self,
        _: Request<pb::AwaitRedemptionRequest>,
    ) -> Result<Response<pb::AwaitRedemptionResponse>, Status> {
        not_served()
    }

    async fn get_redemption(
        &self,
        _: Request<pb::GetRedemptionRequest>,
    ) -> Result<Response<pb::GetRedemptionResponse>, Status> {
        not_served()
    }

    async fn list_redemptions(
        &self,
        _: Request<pb::ListRedemptionsRequest>,
    ) -> Result<Response<pb::ListRedemptionsResponse>, Status> {
        not_served()
    }

    async fn resolve_redemption(
        &self,
        _: Request<pb::ResolveRedemptionRequest>,
    ) -> Result<Response<pb::ResolveRedemptionResponse>, Status> {
        not_served()
    }

    async fn reverse_redemption(
        &self,
        _: Request<pb::ReverseRedemptionRequest>,
    ) -> Result<Response<pb::ReverseRedemptionResponse>, Status> {
        not_served()
    }
}
