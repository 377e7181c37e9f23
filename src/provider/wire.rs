//! The provider's HTTP contract, as it is written and read.
//!
//! What is read is all optional: whether an answer is complete is for `classify` to say, which
//! knows what the answer is to. Types that may repeat a card's code have no `Debug`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::redemption::Ask;

/// The body of `POST /redemptions`. Fields are written in this order, so that the same redemption
/// is always the same bytes: the provider answers 422 when a key comes back with other ones.
#[derive(Serialize)]
struct RedemptionRequest<'a> {
    code: &'a str,
    account_ref: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected: Option<Expected<'a>>,
    not_after: &'a str,
}

#[derive(Serialize)]
struct Expected<'a> {
    amount_minor: i64,
    currency_code: &'a str,
}

/// The bytes that ask for a redemption.
pub(super) fn redemption_request(ask: &Ask) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&RedemptionRequest {
        code: ask.code.expose(),
        account_ref: ask.account_id.as_str(),
        expected: ask.expected.as_ref().map(|money| Expected {
            amount_minor: money.amount_minor,
            currency_code: money.currency.as_str(),
        }),
        not_after: &ask.not_after,
    })
}

/// The body of `POST /cards/inquire`.
#[derive(Serialize)]
pub(super) struct InquireRequest<'a> {
    /// The card.
    pub(super) code: &'a str,
}

/// A redemption, as `POST /redemptions`, `GET /redemptions/{key}` and the cancellation answer it.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Redemption {
    pub(super) key: Option<String>,
    pub(super) provider_ref: Option<String>,
    pub(super) state: Option<String>,
    pub(super) amount_minor: Option<i64>,
    pub(super) currency_code: Option<String>,
    pub(super) account_ref: Option<String>,
    pub(super) failure: Option<Failure>,
    pub(super) poll_after_ms: Option<u64>,
}

/// Why the provider refused a redemption.
#[derive(Deserialize)]
pub(super) struct Failure {
    pub(super) code: String,
    #[serde(default)]
    pub(super) message: String,
    pub(super) code_spent: bool,
}

/// What the body of an answer that is not a redemption may say.
#[derive(Default)]
pub(super) struct Problem {
    pub(super) message: Option<String>,
    pub(super) executed: Option<bool>,
    pub(super) retry_after_ms: Option<u64>,
}

impl Problem {
    /// Reads whatever is there: a field of another type than expected does not hide the others.
    pub(super) fn read(body: &[u8]) -> Self {
        let Ok(body) = serde_json::from_slice::<Value>(body) else {
            return Self::default();
        };
        Self {
            message: body["message"].as_str().or(body["error"].as_str()).map(str::to_owned),
            executed: body["executed"].as_bool(),
            retry_after_ms: body["retry_after_ms"].as_u64(),
        }
    }
}

/// What a card is worth, as the provider says without redeeming it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Card {
    /// Its value, in the currency's minor unit.
    pub amount_minor: i64,
    /// ISO 4217.
    pub currency_code: String,
    /// ISO 3166-1 alpha-2.
    #[serde(default)]
    pub country_code: Option<String>,
    /// Whether a redemption of it could succeed now.
    pub redeemable: bool,
}

/// One redemption of a [`Page`]. The text of a failure is left out: it may repeat a code that
/// nobody who reads a page knows, and so nobody could remove.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Listed {
    /// The idempotency key that it was asked for by.
    pub key: String,
    /// `succeeded`, `failed` or `cancelled`.
    pub state: String,
    /// The provider's own name for it.
    #[serde(default)]
    pub provider_ref: Option<String>,
    /// What was credited, in the currency's minor unit; of a success, always there.
    #[serde(default)]
    pub amount_minor: Option<i64>,
    /// ISO 4217.
    #[serde(default)]
    pub currency_code: Option<String>,
    /// The account that was credited.
    #[serde(default)]
    pub account_ref: Option<String>,
}

/// A page of the redemptions that were completed in a time.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Page {
    /// In the order of their completion.
    pub redemptions: Vec<Listed>,
    /// Asks for the page after this one; empty or missing on the last.
    #[serde(default)]
    pub next_page_token: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        id::{AccountId, RedemptionId},
        money::{Currency, Money},
        redemption::CardCode,
    };

    #[test]
    fn the_same_redemption_is_the_same_bytes() {
        let currency = Currency::parse("EUR").unwrap();
        let mut ask = Ask {
            redemption_id: RedemptionId::new(),
            code: CardCode::parse("AB\"12").unwrap(),
            account_id: AccountId::parse("acc-1").unwrap(),
            expected: Some(Money { amount_minor: 5000, currency }),
            currency,
            not_after: "2026-11-01T00:00:00Z".to_owned(),
        };
        let bytes = redemption_request(&ask).unwrap();
        assert_eq!(
            String::from_utf8(bytes.clone()).unwrap(),
            r#"{"code":"AB\"12","account_ref":"acc-1","expected":{"amount_minor":5000,"currency_code":"EUR"},"not_after":"2026-11-01T00:00:00Z"}"#
        );
        assert_eq!(bytes, redemption_request(&ask.clone()).unwrap());
        ask.expected = None;
        assert_eq!(
            String::from_utf8(redemption_request(&ask).unwrap()).unwrap(),
            r#"{"code":"AB\"12","account_ref":"acc-1","not_after":"2026-11-01T00:00:00Z"}"#
        );
    }
}
