//! Square's gift cards, as far as a card is redeemed: activities with idempotency keys, lists in pages by a cursor, and
//! a card by its account number (GAN).

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::Query,
    response::{IntoResponse as _, Response},
    routing::post,
};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;

use super::{new_name, sha256};
use crate::{
    book::{Asked, How, Standing},
    call::Call,
    cards::code_sha256,
    ledger::{NotDurable, Row, State},
    request::{Manners, Told, submit},
    shared::{Shared, lock},
};

/// Activities on a page, when none or too many are asked for.
const DEFAULT_PAGE: usize = 50;
const MAX_PAGE: usize = 100;
/// What a card's id begins with. The fingerprint of its code follows.
const CARD_ID: &str = "gftc:";
/// The name of the caller's own reference in a row's extra.
const REFERENCE: &str = "reference_id";

static MANNERS: Manners = Manners {
    busy: || {
        problem(StatusCode::TOO_MANY_REQUESTS, "RATE_LIMIT_ERROR", "RATE_LIMITED", "come later")
    },
    broken: || {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        problem(status, "API_ERROR", "INTERNAL_SERVER_ERROR", "it broke")
    },
    half: (StatusCode::OK, "{\"gift_card_activity\":{\"id\":\"gcact_"),
};

/// The paths.
pub(super) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/v2/gift-cards/activities", post(create).get(list))
        .route("/v2/gift-cards/from-gan", post(from_gan))
}

fn problem(status: StatusCode, category: &str, code: &str, detail: &str) -> Response {
    let error = json!({"category": category, "code": code, "detail": detail});
    (status, Json(json!({"errors": [error]}))).into_response()
}

fn invalid(status: StatusCode, code: &str, detail: &str) -> Response {
    problem(status, "INVALID_REQUEST_ERROR", code, detail)
}

/// The answer to a caller whose token is wrong.
fn refusal(call: &Call) -> Option<Response> {
    let key = call.shared.api_key.as_deref()?;
    let is_good = call.header("authorization").strip_prefix("Bearer ") == Some(key);
    let status = StatusCode::UNAUTHORIZED;
    (!is_good).then(|| problem(status, "AUTHENTICATION_ERROR", "UNAUTHORIZED", "not this token"))
}

#[derive(Deserialize)]
struct Request {
    idempotency_key: String,
    gift_card_activity: Activity,
}

#[derive(Deserialize)]
struct Activity {
    #[serde(rename = "type")]
    kind: String,
    location_id: String,
    gift_card_gan: String,
    redeem_activity_details: Details,
}

#[derive(Deserialize)]
struct Details {
    amount_money: Money,
    reference_id: Option<String>,
}

#[derive(Deserialize)]
struct Money {
    amount: i64,
    currency: String,
}

async fn create(call: Call) -> Response {
    if let Some(refused) = refusal(&call) {
        return refused;
    }
    let bad = |code, why| invalid(StatusCode::BAD_REQUEST, code, why);
    let Some(request) = call.json::<Request>() else {
        return bad("BAD_REQUEST", "the body is no redeeming activity");
    };
    if !(1..=128).contains(&request.idempotency_key.len()) {
        return bad("INVALID_VALUE", "the key must have 1 to 128 characters");
    }
    let activity = request.gift_card_activity;
    if activity.kind != "REDEEM" || activity.redeem_activity_details.amount_money.amount < 1 {
        return bad("INVALID_VALUE", "only REDEEM is served, with an amount of at least 1");
    }
    let code = activity.gift_card_gan.clone();
    let payload = sha256(&call.body);
    let asked = asked(&call.shared, request.idempotency_key, payload, activity);
    let apply = |shared, code, how| redeem(shared, asked, code, how);
    call.execute(code, &MANNERS, apply).await
}

fn asked(shared: &Shared, key: String, payload_sha256: String, activity: Activity) -> Asked {
    let Details { amount_money, reference_id } = activity.redeem_activity_details;
    let reference = reference_id.map(|reference| (REFERENCE.to_owned(), reference));
    Asked {
        key,
        payload_sha256,
        code_sha256: code_sha256(&activity.gift_card_gan),
        account_ref: activity.location_id,
        expected_currency: Some(amount_money.currency),
        amount_minor: Some(amount_money.amount),
        not_after: None,
        provider_ref: Some(new_name("gcact_")),
        extra: shared.seal(&activity.gift_card_gan).into_iter().chain(reference).collect(),
    }
}

async fn redeem(
    shared: Arc<Shared>,
    asked: Asked,
    code: String,
    how: How,
) -> Result<Response, NotDurable> {
    let row = match submit(&shared, asked, how).await? {
        Told::New(row) | Told::Repeated(row) => row,
        Told::InProgress => {
            return Ok(invalid(StatusCode::CONFLICT, "CONFLICT", "the key is in progress"));
        }
        Told::Reused => {
            let why = "the key was seen with another request";
            return Ok(invalid(StatusCode::BAD_REQUEST, "IDEMPOTENCY_KEY_REUSED", why));
        }
    };
    let Some(failure) = &row.failure else {
        return Ok(Json(json!({"gift_card_activity": activity(&shared, &row)})).into_response());
    };
    let (status, code_told) = match &*failure.code {
        "CODE_UNKNOWN" => (StatusCode::NOT_FOUND, "NOT_FOUND"),
        "CODE_USED" => (StatusCode::BAD_REQUEST, "INSUFFICIENT_FUNDS"),
        "INSUFFICIENT_FUNDS" => (StatusCode::BAD_REQUEST, "GIFT_CARD_AVAILABLE_AMOUNT"),
        "CURRENCY_NOT_ACCEPTED" => (StatusCode::BAD_REQUEST, "CURRENCY_MISMATCH"),
        "ACCOUNT_LOGIN_INVALID" => (StatusCode::BAD_REQUEST, "LOCATION_MISMATCH"),
        _ => (StatusCode::BAD_REQUEST, "TRANSACTION_LIMIT"),
    };
    Ok(invalid(status, code_told, &shared.message(failure, &code)))
}

fn money(amount: i64, currency: &str) -> Value {
    json!({"amount": amount, "currency": currency})
}

fn activity(shared: &Shared, row: &Row) -> Value {
    let fingerprint = row.code_sha256.as_deref().unwrap_or_default();
    let left = lock(&shared.book).inquire(fingerprint).map_or(0, |card| card.left_minor);
    let status = if row.state == State::Processing { "PENDING" } else { "COMPLETED" };
    json!({
        "id": row.provider_ref,
        "type": "REDEEM",
        "location_id": row.account_ref,
        "created_at": row.at.format(&Rfc3339).unwrap_or_default(),
        "gift_card_id": format!("{CARD_ID}{fingerprint}"),
        "gift_card_gan": shared.code_of(row),
        "gift_card_balance_money": money(left, &row.currency_code),
        "redeem_activity_details": {
            "amount_money": money(row.amount_minor, &row.currency_code),
            "reference_id": row.extra.get(REFERENCE),
            "status": status,
        },
    })
}

#[derive(Deserialize)]
struct ListQuery {
    #[serde(rename = "type")]
    kind: Option<String>,
    location_id: Option<String>,
    gift_card_id: Option<String>,
    sort_order: Option<String>,
    limit: Option<usize>,
    cursor: Option<String>,
}

async fn list(Query(query): Query<ListQuery>, call: Call) -> Response {
    if let Some(answer) = refusal(&call).or_else(|| call.struck_look_up(&MANNERS)) {
        return answer;
    }
    let shared = &call.shared;
    let bad = |why| invalid(StatusCode::BAD_REQUEST, "INVALID_VALUE", why);
    if query.sort_order.as_deref().is_some_and(|order| order != "DESC") {
        return bad("only DESC is served");
    }
    let before = query.cursor.as_deref().filter(|cursor| !cursor.is_empty());
    let Ok(before) = before.map(|cursor| u64::from_str_radix(cursor, 16)).transpose() else {
        return bad("the cursor was not given by a list");
    };
    let limit = query.limit.unwrap_or(DEFAULT_PAGE).clamp(1, MAX_PAGE);
    let is_of = |wanted: &Option<String>, value: &str| wanted.as_ref().is_none_or(|w| w == value);
    let mut found = lock(&shared.book).newest(before, limit + 1, |entry| {
        let row = &entry.row;
        let card = format!("{CARD_ID}{}", row.code_sha256.as_deref().unwrap_or_default());
        // What was refused is no activity.
        row.failure.is_none()
            && is_of(&query.kind, "REDEEM")
            && is_of(&query.location_id, row.account_ref.as_deref().unwrap_or_default())
            && is_of(&query.gift_card_id, &card)
            && shared.is_visible(entry)
    });
    let more = found.len() > limit;
    found.truncate(limit);
    let cursor = found.last().filter(|_| more).map(|(number, _)| format!("{number:x}"));
    let entries: Vec<_> = found.into_iter().map(|(_, entry)| entry).collect();
    let answer = || {
        let mut body = json!({});
        // An empty list is left out, as is the cursor after the last page.
        if !entries.is_empty() {
            body["gift_card_activities"] =
                entries.iter().map(|entry| activity(shared, &entry.row)).collect();
        }
        if let Some(cursor) = cursor {
            body["cursor"] = cursor.into();
        }
        Json(body).into_response()
    };
    call.once_all_durable(&entries, answer).await
}

#[derive(Deserialize)]
struct Gan {
    gan: String,
}

async fn from_gan(call: Call) -> Response {
    if let Some(refused) = refusal(&call) {
        return refused;
    }
    let Some(Gan { gan }) = call.json() else {
        return invalid(StatusCode::BAD_REQUEST, "BAD_REQUEST", "the body has no gan");
    };
    if let Some(broken) = call.struck_inquiry(&MANNERS).await {
        return broken;
    }
    let fingerprint = code_sha256(&gan);
    let found = lock(&call.shared.book).inquire(&fingerprint);
    let Some(Standing { card, left_minor, .. }) = found else {
        return invalid(StatusCode::NOT_FOUND, "NOT_FOUND", "there is no such card");
    };
    let card = json!({
        "id": format!("{CARD_ID}{fingerprint}"),
        "type": "DIGITAL",
        "gan_source": "SQUARE",
        "state": "ACTIVE",
        "gan": gan,
        "balance_money": money(left_minor, &card.currency_code),
    });
    Json(json!({"gift_card": card})).into_response()
}
