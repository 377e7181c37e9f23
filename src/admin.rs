//! The HTTP address for operators: `/livez`, `/readyz` and `/metrics`.

use std::{pin::pin, time::Duration};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    health::Health,
    listener::{Accepts, ConnectionLimit, ConnectionPermit},
};

/// The most connections at once.
const MAX_CONNECTIONS: usize = 256;
/// How long the head of a request may take, and how long a connection may wait for one.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection is kept, whatever its client does. Who asks again opens another.
const MAX_AGE: Duration = Duration::from_secs(60);
/// How long the answer that is under way then may still take.
const LAST_ANSWER: Duration = Duration::from_secs(5);

/// Serves until `stop`.
pub async fn serve(
    listener: TcpListener,
    health: Health,
    metrics: &'static PrometheusHandle,
    stop: CancellationToken,
) {
    let router = Router::new()
        // That this answers is the news: the process lives and its runtime runs.
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(ready).with_state(health))
        .route("/metrics", get(async || metrics.render()));
    let mut accepts = Accepts::new(listener, ConnectionLimit::new(MAX_CONNECTIONS, "admin"));
    while let Some((stream, permit)) = stop.run_until_cancelled(accepts.next()).await {
        tokio::spawn(serve_one(stream, permit, router.clone(), stop.clone()));
    }
}

/// Serves a connection, for a time that is bounded.
async fn serve_one(
    stream: TcpStream,
    _permit: ConnectionPermit,
    router: Router,
    stop: CancellationToken,
) {
    let mut served = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
    );
    let ended = tokio::select! {
        ended = &mut served => Some(ended),
        _ = timeout(MAX_AGE, stop.cancelled()) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            served.as_mut().graceful_shutdown();
            timeout(LAST_ANSWER, served).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the admin address ended early");
    }
}

async fn ready(State(health): State<Health>) -> (StatusCode, &'static str) {
    if health.is_serving() {
        (StatusCode::OK, "serving\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not serving\n")
    }
}
