//! The paths: those that every API has, and the thin modules that translate each API's own.

mod fiserv;
mod holdfast;
mod money;
mod square;
mod task;

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State as Shares},
    response::{IntoResponse as _, Response},
    routing::get,
};
use clap::ValueEnum;
use http::StatusCode;
use sha2::{Digest as _, Sha256};

use super::shared::{Shared, lock};

pub(super) use task::ended as ended_task;

/// The longest request that is read, in bytes.
const MAX_REQUEST_BYTES: usize = 64 * 1024;

/// Which API is served.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Api {
    /// Holdfast's own contract.
    #[default]
    Holdfast,
    /// Tasks with account logins, which are created and polled. Nothing is deduplicated.
    Task,
    /// Square's gift card activities. A key that is repeated gets the first outcome.
    Square,
    /// Fiserv's Commerce Hub. Requests are signed, and a transaction id that is repeated is refused.
    Fiserv,
}

/// The paths.
pub(super) fn router(shared: Arc<Shared>, api: Api) -> Router {
    let paths = match api {
        Api::Holdfast => holdfast::router(),
        Api::Task => task::router(),
        Api::Square => square::router(),
        Api::Fiserv => fiserv::router(),
    };
    paths
        .route("/healthz", get(health))
        .route("/faults", get(show_faults).put(put_faults))
        .layer(DefaultBodyLimit::max(MAX_REQUEST_BYTES))
        .with_state(shared)
}

async fn health(Shares(shared): Shares<Arc<Shared>>) -> StatusCode {
    if shared.ledger.is_open() { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR }
}

async fn show_faults(Shares(shared): Shares<Arc<Shared>>) -> Response {
    Json(lock(&shared.injector).faults()).into_response()
}

async fn put_faults(Shares(shared): Shares<Arc<Shared>>, body: Bytes) -> Response {
    let set = serde_json::from_slice(&body)
        .map_err(anyhow::Error::from)
        .and_then(|faults| shared.set_faults(faults));
    match set {
        Ok(()) => show_faults(Shares(shared)).await,
        Err(error) => holdfast::problem(StatusCode::BAD_REQUEST, "BAD_REQUEST", &error.to_string()),
    }
}

/// A new name of the provider's own.
fn new_name(prefix: &str) -> String {
    format!("{prefix}{:032x}", rand::random::<u128>())
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
