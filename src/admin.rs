//! What is served to operators over plain HTTP: `/livez`, `/readyz` and `/metrics`.

use axum::{Router, extract::State, http::StatusCode, routing::get};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::health::Health;

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
    let served = axum::serve(listener, router)
        .with_graceful_shutdown(async move { stop.cancelled().await })
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "the admin address is not served any more");
    }
}

async fn ready(State(health): State<Health>) -> (StatusCode, &'static str) {
    if health.is_serving() {
        (StatusCode::OK, "serving\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not serving\n")
    }
}
