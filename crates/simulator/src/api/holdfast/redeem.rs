//! `POST /redemptions`: the path that redeems.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    response::{IntoResponse as _, Response},
};
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{problem, redemption};
use crate::{
    api::sha256,
    book::{Asked, How},
    call::Call,
    cards::code_sha256,
    ledger::{NotDurable, Row, State},
    request::{self, Manners, Told},
    shared::Shared,
};

/// How long a caller that was told to come later is told to wait.
const RETRY_AFTER_MS: u64 = 50;

pub(super) static MANNERS: Manners = Manners {
    busy,
    broken: || problem(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", "a fault"),
    half: (StatusCode::CREATED, "{\"key\":\"half of an ans"),
};

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
pub(super) async fn redeem(call: Call) -> Response {
    let (asked, code) = match read_request(&call) {
        Ok(read) => read,
        Err(why) => return problem(StatusCode::BAD_REQUEST, "BAD_REQUEST", why),
    };
    let apply = |shared, code, how| submit(shared, asked, code, how);
    call.execute(code, &MANNERS, apply).await
}

fn read_request(call: &Call) -> Result<(Asked, String), &'static str> {
    let key = call.header("idempotency-key");
    if !(1..=128).contains(&key.len()) {
        return Err("Idempotency-Key must be 1 to 128 visible characters");
    }
    let request: RedemptionRequest =
        call.json().ok_or("the body is not a request for a redemption")?;
    let not_after = OffsetDateTime::parse(&request.not_after, &Rfc3339)
        .map_err(|_| "not_after is not an RFC 3339 time")?;
    let asked = Asked {
        key: key.to_owned(),
        payload_sha256: sha256(&call.body),
        code_sha256: code_sha256(&request.code),
        account_ref: request.account_ref,
        expected_currency: request.expected.map(|expected| expected.currency_code),
        amount_minor: None,
        not_after: Some(not_after),
        provider_ref: None,
        extra: BTreeMap::new(),
    };
    Ok((asked, request.code))
}

async fn submit(
    shared: Arc<Shared>,
    asked: Asked,
    code: String,
    how: How,
) -> Result<Response, NotDurable> {
    Ok(match request::submit(&shared, asked, how).await? {
        Told::Reused => problem(
            StatusCode::UNPROCESSABLE_ENTITY,
            "KEY_REUSED",
            "the key was seen with another payload",
        ),
        Told::InProgress => problem(StatusCode::CONFLICT, "IN_PROGRESS", "the key is in progress"),
        Told::Repeated(row) => outcome(&shared, &row, &code, StatusCode::OK),
        Told::New(row) => outcome(&shared, &row, &code, StatusCode::CREATED),
    })
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
    if let Some(failure) = &row.failure {
        body["failure"]["message"] = json!(shared.message(failure, code));
    }
    (status, Json(body)).into_response()
}

fn busy() -> Response {
    let body = json!({"error": "BUSY", "executed": false, "retry_after_ms": RETRY_AFTER_MS});
    (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
}
