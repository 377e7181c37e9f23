//! The HTTP address for providers: `POST /webhooks/PATH`.
//!
//! Anybody who reaches it may call. So the cheapest refusal comes first: the method, the path and the headers, then the
//! length, then the body, and its signature last. No answer has a body, and none tells whether a redemption exists.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Path, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::post,
};
use http_body::Body as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper_util::service::TowerToHyperService;
use tokio::{net::TcpListener, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    listener::{Accepts, ConnectionLimit, http1, tls::Tls},
    service::webhooks::{Hook, Refused, Webhooks},
};

/// The most connections at once.
const MAX_CONNECTIONS: usize = 256;
/// How long a connection is kept, whatever its client does.
const MAX_AGE: Duration = Duration::from_secs(60);
/// The longest body, in bytes.
const MAX_BODY: usize = 64 * 1024;
/// How long a body may take to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the database may take about a call that is the provider's.
const ACT_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves until `stop`, over TLS where there is any.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Tls>,
    webhooks: Webhooks,
    stop: CancellationToken,
) {
    let router = Router::new()
        .route("/webhooks/{path}", post(hear).fallback(other_method))
        .fallback(async || refuse(StatusCode::NOT_FOUND, "path"))
        .with_state(webhooks);
    let mut accepts = Accepts::new(listener, ConnectionLimit::new(MAX_CONNECTIONS, "webhook"));
    while let Some((stream, permit)) = stop.run_until_cancelled(accepts.next()).await {
        let service = TowerToHyperService::new(router.clone());
        let serve = http1::serve(stream, permit, tls.clone(), |_| service, MAX_AGE, stop.clone());
        tokio::spawn(serve);
    }
}

async fn other_method() -> Response {
    let status = refuse(StatusCode::METHOD_NOT_ALLOWED, "method");
    (status, [(header::ALLOW, "POST")]).into_response()
}

async fn hear(
    State(webhooks): State<Webhooks>,
    Path(path): Path<String>,
    request: Request,
) -> StatusCode {
    let hook = match webhooks.hook(&path) {
        Ok(Some(hook)) => hook,
        Ok(None) => return refuse(StatusCode::NOT_FOUND, "path"),
        Err(_) => return refused(Refused::Unavailable),
    };
    match hear_of(&webhooks, &hook, request).await {
        Ok(()) => StatusCode::NO_CONTENT,
        Err(status) => status,
    }
}

async fn hear_of(
    webhooks: &Webhooks,
    hook: &Arc<Hook>,
    request: Request,
) -> Result<(), StatusCode> {
    let headers = texts(request.headers());
    hook.admits(&headers).map_err(refused)?;
    let body = read(request.into_body()).await?;
    // Only text is signed: what is none has another signature.
    let body = str::from_utf8(&body).map_err(|_| refused(Refused::Forged("wrong_signature")))?;
    match timeout(ACT_TIMEOUT, webhooks.hear(hook, &headers, body)).await {
        Ok(heard) => heard.map_err(refused),
        Err(_) => Err(refused(Refused::Unavailable)),
    }
}

/// The headers whose values are text.
fn texts(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |(name, value): (&header::HeaderName, &header::HeaderValue)| {
        Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
    };
    headers.iter().filter_map(text).collect()
}

/// The body, if it is short and comes in time.
async fn read(body: Body) -> Result<Vec<u8>, StatusCode> {
    let too_long = || refuse(StatusCode::PAYLOAD_TOO_LARGE, "too_long");
    if body.size_hint().lower() > MAX_BODY as u64 {
        return Err(too_long());
    }
    match timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes().into()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_long()),
        Ok(Err(_)) => Err(refuse(StatusCode::BAD_REQUEST, "broken")),
        Err(_) => Err(refuse(StatusCode::REQUEST_TIMEOUT, "slow")),
    }
}

fn refused(why: Refused) -> StatusCode {
    let status = match why {
        Refused::Forged(_) => StatusCode::UNAUTHORIZED,
        Refused::NoSecret | Refused::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    };
    refuse(status, why.reason())
}

/// Counts a refusal. Nothing is logged: anybody can make thousands.
fn refuse(status: StatusCode, reason: &'static str) -> StatusCode {
    metrics::counter!("holdfast_webhooks_refused_total", "reason" => reason).increment(1);
    status
}
