//! Holdfast's own contract: its paths, but for the one that redeems, which is in `redeem`.

mod redeem;

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Path, Query},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use self::redeem::MANNERS;
use crate::{
    book::{Position, Standing},
    call::Call,
    cards::code_sha256,
    ledger::{Row, State},
    shared::{Shared, lock},
};

/// Redemptions on a page.
const PAGE: usize = 1000;

/// The paths.
pub(super) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/redemptions", post(redeem::redeem).get(list))
        .route("/redemptions/{key}", get(look_up))
        .route("/redemptions/{key}/cancel", post(cancel))
        .route("/cards/inquire", post(inquire))
}

/// A redemption as the contract has it.
fn redemption(shared: &Shared, row: &Row) -> Value {
    let mut body = json!({
        "key": row.key,
        "provider_ref": row.provider_ref,
        "state": row.state,
        "amount_minor": row.amount_minor,
        "currency_code": row.currency_code,
        "account_ref": row.account_ref,
    });
    if let Some(balance) = row.balance_minor {
        body["balance_minor"] = balance.into();
    }
    if let Some(failure) = &row.failure {
        body["failure"] = json!(failure);
    }
    if row.state == State::Processing {
        let time = shared.processing_time();
        let poll = (time / 3).clamp(Duration::from_millis(10), Duration::from_secs(1));
        body["poll_after_ms"] = json!(poll.as_millis() as u64);
    }
    body
}

/// An error as the contract has it.
pub(super) fn problem(status: StatusCode, error: &str, message: &str) -> Response {
    (status, Json(json!({"error": error, "message": message}))).into_response()
}

async fn look_up(Path(key): Path<String>, call: Call) -> Response {
    if let Some(broken) = call.struck_look_up(&MANNERS) {
        return broken;
    }
    let shared = &call.shared;
    let unknown = |why| problem(StatusCode::NOT_FOUND, "NOT_FOUND", why);
    let found = lock(&shared.book).get(&key);
    let Some(entry) = found else { return unknown("the key was never seen") };
    let answer = || match shared.is_visible(&entry) {
        true => Json(redemption(shared, &entry.row)).into_response(),
        false => unknown("the key is not to be seen"),
    };
    call.once_durable(entry.number, answer).await
}

async fn cancel(Path(key): Path<String>, call: Call) -> Response {
    let shared = &call.shared;
    if !shared.cancels {
        return problem(StatusCode::NOT_FOUND, "NOT_FOUND", "there is no such path");
    }
    if key.len() > 128 {
        return problem(StatusCode::BAD_REQUEST, "BAD_REQUEST", "the key is too long");
    }
    let entry = lock(&shared.book).cancel(&key);
    let answer = || match entry.row.state {
        State::Succeeded => {
            problem(StatusCode::CONFLICT, "ALREADY_SUCCEEDED", "the redemption has succeeded")
        }
        _ => Json(redemption(shared, &entry.row)).into_response(),
    };
    call.once_durable(entry.number, answer).await
}

#[derive(Deserialize)]
struct InquireRequest {
    code: String,
}

async fn inquire(call: Call) -> Response {
    let Some(request) = call.json::<InquireRequest>() else {
        return problem(StatusCode::BAD_REQUEST, "BAD_REQUEST", "the body is not an inquiry");
    };
    if let Some(broken) = call.struck_inquiry(&MANNERS).await {
        return broken;
    }
    let found = lock(&call.shared.book).inquire(&code_sha256(&request.code));
    match found {
        None => problem(StatusCode::NOT_FOUND, "CODE_UNKNOWN", "there is no such card"),
        Some(Standing { card, is_whole, .. }) => Json(json!({
            "amount_minor": card.amount_minor,
            "currency_code": card.currency_code,
            "country_code": card.country_code,
            "redeemable": is_whole,
        }))
        .into_response(),
    }
}

#[derive(Deserialize)]
struct ListQuery {
    from: Option<String>,
    to: Option<String>,
    page_token: Option<String>,
}

async fn list(Query(query): Query<ListQuery>, call: Call) -> Response {
    let shared = &call.shared;
    let Some((from, to, after)) = read_query(&query) else {
        return problem(
            StatusCode::BAD_REQUEST,
            "BAD_REQUEST",
            "from and to must be RFC 3339 times, and page_token one that was given",
        );
    };
    let (mut entries, rows) = {
        let book = lock(&shared.book);
        (book.list(from, to, after, PAGE + 1), book.rows())
    };
    let more = entries.len() > PAGE;
    entries.truncate(PAGE);
    let next =
        entries.last().filter(|_| more).map(|entry| write_token((entry.row.at, entry.number)));
    let answer = || {
        let redemptions: Vec<Value> =
            entries.iter().map(|entry| redemption(shared, &entry.row)).collect();
        Json(json!({"redemptions": redemptions, "next_page_token": next.unwrap_or_default()}))
            .into_response()
    };
    call.once_durable(rows, answer).await
}

fn read_query(query: &ListQuery) -> Option<(OffsetDateTime, OffsetDateTime, Option<Position>)> {
    let time = |text: &Option<String>, default: OffsetDateTime| match text.as_deref() {
        None | Some("") => Some(default),
        Some(text) => OffsetDateTime::parse(text, &Rfc3339).ok(),
    };
    let from = time(&query.from, OffsetDateTime::UNIX_EPOCH)?;
    let to = time(&query.to, OffsetDateTime::now_utc() + Duration::from_secs(86_400))?;
    let after = match query.page_token.as_deref() {
        None | Some("") => None,
        Some(token) => Some(read_token(token)?),
    };
    Some((from, to, after))
}

fn write_token((at, number): Position) -> String {
    format!("{}.{number}", at.unix_timestamp_nanos())
}

fn read_token(token: &str) -> Option<Position> {
    let (at, number) = token.split_once('.')?;
    let at = OffsetDateTime::from_unix_timestamp_nanos(at.parse().ok()?).ok()?;
    Some((at, number.parse().ok()?))
}
