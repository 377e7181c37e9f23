//! `POST /redemptions`: the path that redeems, and where a fault strikes.

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{ConnectInfo, State as Shares},
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::time::sleep;

use super::{
    book::{Asked, How, Submitted},
    cards::code_sha256,
    cut::Connection,
    faults::Fault,
    ledger::{NotDurable, Row, State},
    reply::{Reply, problem, redemption},
    shared::{Shared, lock},
};

/// How long a caller that was told to come later is told to wait.
const RETRY_AFTER_MS: u64 = 50;

/// The body of `POST /redemptions`.
#[derive(Deserialize)]
struct RedemptionRequest {
    code: String,
    account_ref: String,
    expected: Option<Expected>,
    not_after: String,
}

#[derive(Deserialize)]
struct Expected {
    currency_code: String,
}

/// Reads the request, and answers it as the faults will have it.
pub(super) async fn redeem(
    Shares(shared): Shares<Arc<Shared>>,
    ConnectInfo(connection): ConnectInfo<Connection>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let (asked, code) = match read_request(&headers, &body) {
        Ok(read) => read,
        Err(why) => return problem(StatusCode::BAD_REQUEST, "BAD_REQUEST", why),
    };
    // In a task of its own: a provider goes on when its caller has hung up.
    match tokio::spawn(execute(shared, asked, code)).await {
        Ok(reply) => reply.give(&connection).await,
        Err(_) => problem(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", "it broke"),
    }
}

fn read_request(headers: &HeaderMap, body: &[u8]) -> Result<(Asked, String), &'static str> {
    let key = headers
        .get("idempotency-key")
        .and_then(|key| key.to_str().ok())
        .filter(|key| (1..=128).contains(&key.len()))
        .ok_or("Idempotency-Key must be 1 to 128 visible characters")?;
    let request: RedemptionRequest =
        serde_json::from_slice(body).map_err(|_| "the body is not a request for a redemption")?;
    let not_after = OffsetDateTime::parse(&request.not_after, &Rfc3339)
        .map_err(|_| "not_after is not an RFC 3339 time")?;
    let asked = Asked {
        key: key.to_owned(),
        payload_sha256: hex::encode(Sha256::digest(body)),
        code_sha256: code_sha256(&request.code),
        account_ref: request.account_ref,
        expected_currency: request.expected.map(|expected| expected.currency_code),
        not_after,
    };
    Ok((asked, request.code))
}

async fn execute(shared: Arc<Shared>, asked: Asked, code: String) -> Reply {
    let (latency, fault) = lock(&shared.injector).of_request(&code);
    if !latency.is_zero() {
        sleep(latency).await;
    }
    match fault {
        Some(Fault::DropBeforeApply) => return Reply::Cut,
        Some(Fault::Busy) => return Reply::Answer(busy()),
        _ => {}
    }
    match submit(&shared, asked, &code, fault).await {
        Err(NotDurable) => Reply::Cut,
        Ok(response) => match fault {
            Some(Fault::ApplyThenDrop) => Reply::Cut,
            Some(Fault::Stall) => Reply::Stall,
            Some(Fault::ErrorAfterApply) => Reply::Answer(problem(
                StatusCode::INTERNAL_SERVER_ERROR,
                "INTERNAL",
                "a fault, after it was executed",
            )),
            Some(Fault::Garbage) => {
                Reply::Answer((StatusCode::CREATED, "{\"key\":\"half of an ans").into_response())
            }
            _ => Reply::Answer(response),
        },
    }
}

/// Enters the request into the book, and answers once the ledger has it.
async fn submit(
    shared: &Arc<Shared>,
    asked: Asked,
    code: &str,
    fault: Option<Fault>,
) -> Result<Response, NotDurable> {
    let how = How {
        slowly: fault == Some(Fault::Slow202),
        wrong_amount: fault == Some(Fault::WrongAmount),
        refused: fault.and_then(Fault::refusal),
    };
    let submitted = lock(&shared.book).submit(asked, how);
    match submitted {
        Submitted::Reused => Ok(problem(
            StatusCode::UNPROCESSABLE_ENTITY,
            "KEY_REUSED",
            "the key was seen with another payload",
        )),
        // The request that began it has not been answered yet.
        Submitted::Repeated(entry) if !shared.ledger.is_durable(entry.number) => {
            Ok(problem(StatusCode::CONFLICT, "IN_PROGRESS", "the key is in progress"))
        }
        Submitted::Repeated(entry) => Ok(outcome(shared, &entry.row, code, StatusCode::OK)),
        Submitted::New(entry) => {
            shared.ledger.durable(entry.number).await?;
            if entry.row.state == State::Processing {
                shared.clone().finish_later(entry.row.key.clone());
            }
            Ok(outcome(shared, &entry.row, code, StatusCode::CREATED))
        }
    }
}

/// A redemption as the answer to asking for it.
fn outcome(shared: &Shared, row: &Row, code: &str, success: StatusCode) -> Response {
    let status = match row.state {
        State::Succeeded => success,
        State::Processing => StatusCode::ACCEPTED,
        State::Failed => StatusCode::PAYMENT_REQUIRED,
        State::Cancelled => StatusCode::GONE,
    };
    let mut body = redemption(shared, row);
    if let (true, Some(failure)) = (shared.tells_codes, &row.failure) {
        body["failure"]["message"] = json!(format!("{}: {code}", failure.message));
    }
    (status, Json(body)).into_response()
}

fn busy() -> Response {
    let body = json!({"error": "BUSY", "executed": false, "retry_after_ms": RETRY_AFTER_MS});
    (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
}
