//! The HTTP address for operators: `/livez`, `/readyz` and `/metrics`.

use std::{sync::Arc, time::Duration};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use hyper_util::service::TowerToHyperService;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    health::Health,
    listener::{Accepts, ConnectionLimit, http1, tls::Tls},
    telemetry::Rendered,
};

/// The most connections at once.
const MAX_CONNECTIONS: usize = 256;
/// How long a connection is kept, whatever its client does. Who asks again opens another.
const MAX_AGE: Duration = Duration::from_secs(60);

/// Serves until `stop`, over TLS where there is any.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Tls>,
    health: Health,
    metrics: &'static PrometheusHandle,
    stop: CancellationToken,
) {
    let rendered = Arc::new(Rendered::new(metrics));
    let router = Router::new()
        // That this answers is the news: the process lives and its runtime runs.
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(ready).with_state(health))
        .route("/metrics", get(async move || rendered.text().await));
    let limit = ConnectionLimit::new(MAX_CONNECTIONS, "admin");
    let mut accepts = Accepts::new(listener, limit).with_the_last();
    while let Some((stream, permit)) = stop.run_until_cancelled(accepts.next()).await {
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(http1::serve(stream, permit, tls.clone(), service, MAX_AGE, stop.clone()));
    }
}

async fn ready(State(health): State<Health>) -> (StatusCode, &'static str) {
    if !health.is_serving() {
        (StatusCode::SERVICE_UNAVAILABLE, "not serving\n")
    } else if !health.accepts() {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "connections cannot be accepted: too many files are open\n",
        )
    } else {
        (StatusCode::OK, "serving\n")
    }
}
