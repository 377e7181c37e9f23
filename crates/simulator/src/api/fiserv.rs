//! Fiserv's Commerce Hub, as far as a gift card is charged: requests that are signed with the time, transaction ids of
//! the merchant that are refused when they come again, inquiries that answer arrays, and cancels.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json, Router,
    response::{IntoResponse as _, Response},
    routing::post,
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::Sha256;
use time::{Duration, OffsetDateTime};

use super::{money, new_name, sha256};
use crate::{
    book::{Asked, Book, Entry, How},
    call::Call,
    cards::code_sha256,
    ledger::{NotDurable, Row, State},
    request::{Manners, Told, submit},
    shared::{Shared, lock},
};

/// How old a signature may be, or how far ahead of this clock.
const SIGNATURE_AGE: Duration = Duration::minutes(5);
/// The most transactions that an inquiry by Fiserv's own id answers.
const MAX_FOUND: usize = 100;

static MANNERS: Manners = Manners {
    busy: || problem(StatusCode::TOO_MANY_REQUESTS, "RATE_LIMITED", "too many requests"),
    broken: || problem(StatusCode::INTERNAL_SERVER_ERROR, "500", "it broke"),
    half: (StatusCode::CREATED, "{\"gatewayResponse\":{\"transactionState\":\"CAPTU"),
};

/// The paths.
pub(super) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/payments/v1/charges", post(charge))
        .route("/payments/v1/transaction-inquiry", post(inquire))
        .route("/payments/v1/cancels", post(cancel))
}

fn problem(status: StatusCode, code: &str, message: &str) -> Response {
    let error = json!({"type": "GATEWAY", "code": code, "message": message});
    (status, Json(json!({"error": [error]}))).into_response()
}

fn bad(message: &str) -> Response {
    problem(StatusCode::BAD_REQUEST, "INVALID_REQUEST", message)
}

fn unknown() -> Response {
    problem(StatusCode::NOT_FOUND, "TRANSACTION_NOT_FOUND", "there is no such transaction")
}

/// The answer to a caller whose key, time or signature is wrong.
fn refusal(call: &Call) -> Option<Response> {
    let shared = &call.shared;
    let why = if shared.api_key.as_deref().is_some_and(|key| call.header("api-key") != key) {
        "the api key is wrong"
    } else {
        let secret = shared.api_secret.as_deref()?;
        let age = call.header("timestamp").parse().ok().and_then(age);
        if age.is_none_or(|age| age.abs() > SIGNATURE_AGE) {
            "the timestamp is too old, or no time in milliseconds"
        } else if !is_signed(secret, call) {
            "the signature is wrong"
        } else {
            return None;
        }
    };
    Some(problem(StatusCode::UNAUTHORIZED, "401", why))
}

fn age(epoch_ms: i128) -> Option<Duration> {
    let nanos = epoch_ms.checked_mul(1_000_000)?;
    let time = OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()?;
    Some(OffsetDateTime::now_utc() - time)
}

fn is_signed(secret: &str, call: &Call) -> bool {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { return false };
    for name in ["api-key", "client-request-id", "timestamp"] {
        mac.update(call.header(name).as_bytes());
    }
    mac.update(&call.body);
    let signature = BASE64.decode(call.header("authorization"));
    signature.is_ok_and(|signature| mac.verify_slice(&signature).is_ok())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Charge {
    amount: Amount,
    source: Source,
    transaction_details: Transaction,
    merchant_details: Merchant,
}

#[derive(Deserialize)]
struct Amount {
    total: f64,
    currency: String,
}

#[derive(Deserialize)]
struct Source {
    card: Card,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Card {
    card_data: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Transaction {
    merchant_transaction_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Merchant {
    merchant_id: String,
}

async fn charge(call: Call) -> Response {
    if let Some(refused) = refusal(&call) {
        return refused;
    }
    let Some(charge) = call.json::<Charge>() else {
        return bad("the body is not a charge of a card");
    };
    let Amount { total, currency } = charge.amount;
    let amount = money::from_major(total, &currency).filter(|minor| *minor > 0);
    let Some(amount_minor) = amount else { return bad("the total is not an amount") };
    let code = charge.source.card.card_data;
    let asked = Asked {
        key: charge.transaction_details.merchant_transaction_id,
        payload_sha256: sha256(&call.body),
        code_sha256: code_sha256(&code),
        account_ref: charge.merchant_details.merchant_id,
        expected_currency: Some(currency),
        amount_minor: Some(amount_minor),
        not_after: None,
        provider_ref: Some(new_name("")),
        extra: BTreeMap::new(),
    };
    let apply = |shared, code, how| redeem(shared, asked, code, how);
    call.execute(code, &MANNERS, apply).await
}

async fn redeem(
    shared: Arc<Shared>,
    asked: Asked,
    code: String,
    how: How,
) -> Result<Response, NotDurable> {
    Ok(match submit(&shared, asked, how).await? {
        Told::New(row) => {
            (StatusCode::CREATED, Json(transaction(&shared, &row, &code))).into_response()
        }
        Told::Repeated(_) | Told::InProgress | Told::Reused => {
            let why = "the merchant's transaction id was seen before";
            problem(StatusCode::CONFLICT, "DUPLICATE_TRANSACTION", why)
        }
    })
}

/// A transaction as the answer to its charge.
fn transaction(shared: &Shared, row: &Row, code: &str) -> Value {
    let state = match row.state {
        State::Processing => "PENDING",
        State::Succeeded => "CAPTURED",
        State::Failed => "DECLINED",
        State::Cancelled => "VOIDED",
    };
    let (response, message) = row.failure.as_ref().map_or(("000", "approved".to_owned()), |why| {
        let response = match &*why.code {
            "CODE_UNKNOWN" => "104",
            "CODE_USED" | "INSUFFICIENT_FUNDS" => "NSF",
            "ACCOUNT_LOGIN_INVALID" => "103",
            "ACCOUNT_LIMIT_REACHED" | "ACCOUNT_THROTTLED" => "121",
            _ => "110",
        };
        (response, shared.message(why, code))
    });
    let mut receipt = json!({
        "processorResponseDetails": {"responseCode": response, "responseMessage": message},
    });
    if row.state == State::Succeeded {
        let total = money::to_major(row.amount_minor, &row.currency_code);
        receipt["approvedAmount"] = json!({"total": total, "currency": row.currency_code});
    }
    json!({
        "gatewayResponse": {
            "transactionType": "CHARGE",
            "transactionState": state,
            "transactionProcessingDetails": {"transactionId": row.provider_ref},
        },
        "paymentReceipt": receipt,
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Referring {
    reference_transaction_details: Reference,
    merchant_details: Option<Merchant>,
    amount: Option<Amount>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reference {
    reference_merchant_transaction_id: Option<String>,
    reference_transaction_id: Option<String>,
}

impl Referring {
    /// The transactions that are meant. `None`: nothing is referred to.
    fn find(&self, book: &Book) -> Option<Vec<Entry>> {
        let reference = &self.reference_transaction_details;
        let of_merchant = |entry: &Entry| {
            let wanted = self.merchant_details.as_ref().map(|merchant| &merchant.merchant_id);
            wanted.is_none() || wanted == entry.row.account_ref.as_ref()
        };
        if let Some(key) = &reference.reference_merchant_transaction_id {
            return Some(
                book.all(key).iter().filter(|entry| of_merchant(entry)).cloned().collect(),
            );
        }
        let id = reference.reference_transaction_id.as_ref()?;
        let is_it = |entry: &Entry| entry.row.provider_ref == *id && of_merchant(entry);
        let found = book.newest(None, MAX_FOUND, is_it);
        Some(found.into_iter().map(|(_, entry)| entry).collect())
    }
}

async fn inquire(call: Call) -> Response {
    if let Some(refused) = refusal(&call) {
        return refused;
    }
    if let Some(broken) = call.struck_look_up(&MANNERS) {
        return broken;
    }
    let shared = &call.shared;
    let request = call.json::<Referring>();
    let found = request.and_then(|request| request.find(&lock(&shared.book)));
    let Some(mut found) = found else { return bad("the body refers to no transaction") };
    found.retain(|entry| shared.is_visible(entry));
    let tell = |Entry { row, .. }: &Entry| {
        let mut told = transaction(shared, row, "");
        told["transactionDetails"] = json!({"merchantTransactionId": row.key});
        told["merchantDetails"] = json!({"merchantId": row.account_ref});
        told
    };
    let answer = || Json(found.iter().map(tell).collect::<Vec<_>>()).into_response();
    call.once_all_durable(&found, answer).await
}

/// Takes a charge back that succeeded. A second time, the answer is the same.
async fn cancel(call: Call) -> Response {
    if let Some(refused) = refusal(&call) {
        return refused;
    }
    let shared = &call.shared;
    if !shared.cancels {
        return problem(StatusCode::NOT_FOUND, "404", "there is no such path");
    }
    let Some(request) = call.json::<Referring>() else {
        return bad("the body refers to no transaction");
    };
    let reversed = {
        let mut book = lock(&shared.book);
        let Some(found) = request.find(&book) else {
            return bad("the body refers to no transaction");
        };
        let Some(entry) = found.last() else { return unknown() };
        let minor = request.amount.as_ref().map(|a| money::from_major(a.total, &a.currency));
        let is_part = minor.is_some_and(|minor| minor != Some(entry.row.amount_minor));
        if is_part && entry.row.state == State::Succeeded {
            return bad("only all of a charge is cancelled");
        }
        book.reverse(&entry.row.key)
    };
    let Some(entry) = reversed else { return unknown() };
    let answer = || match entry.row.state {
        State::Cancelled => {
            let mut told = transaction(shared, &entry.row, "");
            told["gatewayResponse"]["transactionType"] = json!("CANCEL");
            (StatusCode::CREATED, Json(told)).into_response()
        }
        _ => {
            let why = "the transaction did not succeed";
            problem(StatusCode::CONFLICT, "TRANSACTION_NOT_CANCELLABLE", why)
        }
    };
    call.once_durable(entry.number, answer).await
}
