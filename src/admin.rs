//! The HTTP address for operators: `/livez`, `/readyz` and `/metrics`.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    extract::{Request, State},
    http::StatusCode,
    routing::get,
};
use bytes::Bytes;
use hyper_util::service::TowerToHyperService;
use tokio::{net::TcpListener, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    access::Authenticator,
    domain::access::{Need, Role},
    health::Health,
    listener::{Accepts, ConnectionLimit, Peer, http1, tls::Tls},
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
    metrics: Metrics,
    stop: CancellationToken,
) {
    let router = Router::new()
        // That this answers is the news: the process lives and its runtime runs.
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(ready).with_state(health))
        .route("/metrics", get(rendered).with_state(metrics));
    let limit = ConnectionLimit::new(MAX_CONNECTIONS, "admin");
    let mut accepts = Accepts::new(listener, limit).with_the_last();
    while let Some((stream, permit)) = stop.run_until_cancelled(accepts.next()).await {
        let router = router.clone();
        let service = |peer: &Peer| TowerToHyperService::new(router.layer(Extension(peer.clone())));
        tokio::spawn(http1::serve(stream, permit, tls.clone(), service, MAX_AGE, stop.clone()));
    }
}

/// The metrics, and who is asked who they are before they are shown.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// All of them.
    pub all: Arc<Rendered>,
    /// `None` where only this machine can ask.
    pub gate: Option<Authenticator>,
}

/// They name the pools, all of them: so what is needed is needed for all.
const NEEDS: Need = Need::Role(Role::Auditor);

async fn rendered(
    State(metrics): State<Metrics>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> (StatusCode, Bytes) {
    if let Some(gate) = &metrics.gate {
        match gate.authenticate(request.headers(), &peer.names.0, Instant::now()) {
            Ok(access) if access.may_everywhere(NEEDS) => {}
            Ok(_) => {
                let text = "the metrics need the role auditor on all pools (*)\n";
                return (StatusCode::FORBIDDEN, Bytes::from_static(text.as_bytes()));
            }
            Err(_) => {
                let text = "send `authorization: Bearer hf_…` with a token that is an auditor's on all pools (*), or show \
                            the certificate of one\n";
                return (StatusCode::UNAUTHORIZED, Bytes::from_static(text.as_bytes()));
            }
        }
    }
    (StatusCode::OK, metrics.all.text().await)
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
