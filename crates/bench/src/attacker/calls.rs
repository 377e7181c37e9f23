//! Calls that cost the server more than the client.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use bytes::Bytes;
use h2::client::SendRequest;
use holdfast::rpc::pb::{
    AcquireAccountRequest, ExplainAcquireRequest, ListAccountsRequest, RedeemRequest,
    ReleaseAccountRequest, redemption_service_client::RedemptionServiceClient,
};
use http::Request;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    time::{interval, timeout},
};
use uuid::Uuid;

use super::{ALWAYS, Attacker, FAT_POOL, FROM, LARGE_POOL, frames, small_pool, until_closed};
use crate::{open_loop::open_loop, secure};

/// Connections whose answers are not read, the streams of each, and how many begin in a quarter of a second.
const UNREAD_CONNECTIONS: usize = 4;
const UNREAD_STREAMS: u32 = 200;
const UNREAD_AT_ONCE: u32 = 10;
/// Connections with large messages, and the messages of each at once.
const LARGE_CONNECTIONS: usize = 4;
const LARGE_AT_ONCE: usize = 8;
const LARGE: usize = 4 * 1024 * 1024;
/// Messages of each that are a MiB and never end.
const UNFINISHED: usize = 16;
/// Explanations a second, and when each is cancelled.
const EXPLAIN: f64 = 100.0;
const CANCELLED_AFTER: Duration = Duration::from_millis(50);
/// Acquisitions a second over the many pools.
const POOLS_A_SECOND: f64 = 500.0;
/// Connections with bad tokens, and calls of each every hundredth of a second.
const BAD_CONNECTIONS: usize = 4;
const BAD_AT_ONCE: u32 = 25;
const BAD_EVERY: Duration = Duration::from_millis(10);
const METRICS_CONNECTIONS: usize = 8;

/// Lists of which no byte is read.
pub(super) async fn unread(attacker: &Arc<Attacker>) -> anyhow::Result<()> {
    attacker.over_and_over(UNREAD_CONNECTIONS, |attacker, _| unread_once(attacker)).await
}

async fn unread_once(attacker: Arc<Attacker>) -> anyhow::Result<()> {
    let list = ListAccountsRequest {
        pool_id: FAT_POOL.to_owned(),
        page_size: 1000,
        ..ListAccountsRequest::default()
    };
    let message = frames::message(&list);
    let path = "/holdfast.v1.AccountService/ListAccounts";
    let headers = frames::call(path, &attacker.args.token);
    let (from, mut to) = tokio::io::split(attacker.tls().await?);
    to.write_all(&frames::begin(Some(0))).await?;
    let send = async {
        let mut ticks = interval(Duration::from_millis(250));
        let mut begun = 0;
        loop {
            ticks.tick().await;
            for _ in 0..UNREAD_AT_ONCE.min(UNREAD_STREAMS - begun) {
                let call = frames::whole_call(2 * begun + 1, &headers, &message);
                if to.write_all(&call).await.is_err() {
                    return;
                }
                begun += 1;
                attacker.count(1);
            }
            if to.flush().await.is_err() {
                return;
            }
        }
    };
    // What comes for the connection is read: only the streams have no window.
    tokio::select! { () = send => {}, () = until_closed(from) => {} }
    Ok(())
}

/// Messages that are larger than any may be, and some that are not finished.
pub(super) async fn large_messages(attacker: &Arc<Attacker>) -> anyhow::Result<()> {
    attacker.over_and_over(LARGE_CONNECTIONS, |attacker, _| large_once(attacker)).await
}

async fn large_once(attacker: Arc<Attacker>) -> anyhow::Result<()> {
    let tls = attacker.tls().await?;
    let (requests, connection) = h2::client::Builder::new().handshake(tls).await?;
    let connected = tokio::spawn(connection);
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..LARGE_AT_ONCE + UNFINISHED {
        let (attacker, requests) = (Arc::clone(&attacker), requests.clone());
        calls.spawn(async move {
            let is_whole = number < LARGE_AT_ONCE;
            loop {
                large_call(&attacker, requests.clone(), is_whole).await?;
                attacker.count(1);
            }
            #[allow(unreachable_code, reason = "it tells the type")]
            anyhow::Ok(())
        });
    }
    while calls.join_next().await.is_some() {}
    connected.abort();
    Ok(())
}

async fn large_call(
    attacker: &Attacker,
    requests: SendRequest<Bytes>,
    is_whole: bool,
) -> anyhow::Result<()> {
    let request = Request::post("https://holdfast/holdfast.v1.RedemptionService/Redeem")
        .header("content-type", "application/grpc")
        .header("authorization", format!("Bearer {}", attacker.args.token))
        .body(())?;
    let (answer, mut body) = requests.ready().await?.send_request(request, false)?;
    let length = if is_whole { LARGE } else { LARGE / 4 - 1024 };
    let mut message = vec![0; 5 + length - usize::from(!is_whole)];
    message[1..5].copy_from_slice(&u32::try_from(length)?.to_be_bytes());
    body.send_data(message.into(), is_whole)?;
    let (_, mut rest) = answer.await?.into_parts();
    while let Some(bytes) = rest.data().await {
        let _ = rest.flow_control().release_capacity(bytes?.len());
    }
    Ok(())
}

/// Explanations of which nobody waits for the answer.
pub(super) async fn explain(attacker: &Arc<Attacker>) -> anyhow::Result<()> {
    let client = RedemptionServiceClient::new(attacker.target().connect().await?);
    let come = |_| {
        let (attacker, mut client) = (Arc::clone(attacker), client.clone());
        async move {
            let request = ExplainAcquireRequest {
                pool_id: LARGE_POOL.to_owned(),
                ..ExplainAcquireRequest::default()
            };
            let _ = timeout(CANCELLED_AFTER, client.explain_acquire(request)).await;
            attacker.count(1);
        }
    };
    open_loop(EXPLAIN, ALWAYS, 1_000, come).await;
    Ok(())
}

/// Acquires and releases in one pool after the other.
pub(super) async fn pools(attacker: &Arc<Attacker>) -> anyhow::Result<()> {
    let client = RedemptionServiceClient::new(attacker.target().connect().await?);
    let next = AtomicUsize::new(0);
    let come = |_| {
        let (attacker, mut client) = (Arc::clone(attacker), client.clone());
        let pool_id = small_pool(next.fetch_add(1, Ordering::Relaxed));
        async move {
            let request = AcquireAccountRequest {
                request_id: Uuid::now_v7().to_string(),
                pool_id,
                holder: "bench".to_owned(),
                ..AcquireAccountRequest::default()
            };
            if let Ok(answer) = client.acquire_account(request).await {
                let lease = answer.into_inner().lease.and_then(|lease| lease.r#ref);
                let _ = client.release_account(ReleaseAccountRequest { lease }).await;
            }
            attacker.count(1);
        }
    };
    open_loop(POOLS_A_SECOND, ALWAYS, 1_000, come).await;
    Ok(())
}

/// Tokens that look like tokens, each another.
pub(super) async fn bad_tokens(attacker: &Arc<Attacker>) -> anyhow::Result<()> {
    attacker.over_and_over(BAD_CONNECTIONS, bad_tokens_once).await
}

async fn bad_tokens_once(attacker: Arc<Attacker>, number: usize) -> anyhow::Result<()> {
    let (from, mut to) = tokio::io::split(attacker.tls().await?);
    to.write_all(&frames::begin(None)).await?;
    let message = frames::message(&RedeemRequest::default());
    let send = async {
        let mut ticks = interval(BAD_EVERY);
        let mut begun = 0;
        loop {
            ticks.tick().await;
            let mut bytes = Vec::new();
            for _ in 0..BAD_AT_ONCE {
                let token = format!("hf_{number}{begun:041}A");
                let headers = frames::call("/holdfast.v1.RedemptionService/Redeem", &token);
                bytes.extend(frames::whole_call(2 * begun + 1, &headers, &message));
                begun += 1;
            }
            if to.write_all(&bytes).await.is_err() || to.flush().await.is_err() {
                return;
            }
            attacker.count(BAD_AT_ONCE.into());
        }
    };
    tokio::select! { () = send => {}, () = until_closed(from) => {} }
    Ok(())
}

/// The metrics, again and again.
pub(super) async fn metrics(attacker: &Arc<Attacker>) -> anyhow::Result<()> {
    // As many series as there are.
    let calling = Arc::clone(attacker);
    let calls = tokio::spawn(async move { pools(&calling).await });
    let asked = attacker.over_and_over(METRICS_CONNECTIONS, |attacker, _| metrics_once(attacker));
    asked.await?;
    calls.await?
}

async fn metrics_once(attacker: Arc<Attacker>) -> anyhow::Result<()> {
    let tcp = secure::tcp(FROM, attacker.args.admin).await?;
    let mut stream = BufReader::new(secure::tls(&attacker.http1, tcp).await?);
    let request = format!(
        "GET /metrics HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n\r\n",
        attacker.args.metrics_token
    );
    loop {
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            anyhow::ensure!(stream.read_line(&mut line).await? > 0, "closed");
            let line = line.trim().to_ascii_lowercase();
            if let Some(bytes) = line.strip_prefix("content-length:") {
                length = bytes.trim().parse().context("a length")?;
            }
            if line.is_empty() {
                break;
            }
        }
        stream.read_exact(&mut vec![0; length]).await?;
        attacker.count(1);
    }
}
