//! The body of a delivery: JSON, with the fields that the contract's `Redemption` has of an outcome.

use serde_json::{Map, Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    domain::{
        money::{Currency, Money},
        redemption::{Failure, Redemption, RedemptionState},
        subscription::DeliveryId,
    },
    service::watching::Told,
};

/// Writes it. It never has a code, nor what a person wrote.
pub(super) fn body(delivery_id: &DeliveryId, (redemption, _): &Told, currency: Currency) -> String {
    let mut data = Map::new();
    let mut set = |name: &str, value: Value| {
        if !value.is_null() {
            data.insert(name.to_owned(), value);
        }
    };
    let money = |it: Money| json!({ "amount_minor": it.amount_minor, "currency_code": it.currency.as_str() });
    let expected =
        redemption.expected_minor.map(|amount_minor| money(Money { amount_minor, currency }));
    set("redemption_id", json!(redemption.redemption_id.to_string()));
    set("request_id", json!(redemption.request_id.as_str()));
    set("pool_id", json!(redemption.pool_id.as_str()));
    set("account_id", json!(redemption.account_id.as_str()));
    set("fencing_token", json!(redemption.token.0));
    set("state", json!(redemption.state.as_str()));
    set("attempt", json!(redemption.attempt));
    set("principal", json!(redemption.principal.to_string()));
    set("expected", json!(expected));
    set("amount", json!(redemption.amount.map(money)));
    set("amount_mismatch", json!(redemption.has_amount_mismatch()));
    set("provider_id", json!(redemption.profile.provider_id.as_str()));
    set("provider_version", json!(redemption.profile.version));
    set("provider_ref", json!(redemption.provider_ref));
    set("code_last4", json!(redemption.code_last4));
    set("failure", json!(failure(redemption)));
    set("attempts", json!(redemption.attempts));
    set("create_time", time(Some(redemption.created_at)));
    set("finish_time", time(redemption.finished_at));
    set("reverse_time", time(redemption.reversed_at));
    let at = redemption.reversed_at.or(redemption.finished_at);
    let delivery_id = delivery_id.as_str();
    json!({ "id": delivery_id, "type": kind(redemption), "timestamp": time(at), "data": data })
        .to_string()
}

fn kind(redemption: &Redemption) -> &'static str {
    match redemption.state {
        RedemptionState::Succeeded if redemption.reversed_at.is_some() => "redemption.reversed",
        RedemptionState::Succeeded => "redemption.succeeded",
        _ => "redemption.failed",
    }
}

fn failure(redemption: &Redemption) -> Option<Value> {
    let is_failed = redemption.state == RedemptionState::Failed;
    let Failure { reason, message, code_spent } =
        redemption.failure.as_ref().filter(|_| is_failed)?;
    let retryable = redemption.is_retryable();
    let mut told = json!({ "reason": reason, "code_spent": code_spent, "retryable": retryable });
    // What a person wrote is for those who run the server.
    if !redemption.is_settled_by_word() {
        told["message"] = json!(message);
    }
    Some(told)
}

/// In RFC 3339, as the provider gets times.
fn time(at: Option<OffsetDateTime>) -> Value {
    at.and_then(|at| at.format(&Rfc3339).ok()).map_or(Value::Null, Value::String)
}
