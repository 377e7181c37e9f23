//! What the built-in contract answers to questions that change nothing: what a card is worth, and lists.

use std::time::Duration;

use super::json::{Object, all_wrong};
use crate::domain::money::Money;

/// How long a body asks to wait.
pub(super) fn retry_after(body: &[u8]) -> Option<Duration> {
    Object::read(body).ok()?.milliseconds("retry_after_ms").if_any()
}

/// Why a question that changes nothing has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No request left.
    #[error("the provider could not be reached: {0}")]
    NeverSent(String),
    /// No whole answer came back.
    #[error("the provider's answer was lost: {0}")]
    Lost(String),
    /// The provider takes no questions now: 429 or 503.
    #[error("the provider answered HTTP {status}")]
    Busy {
        /// The status code.
        status: u16,
        /// When it wants to be asked again, if it says so.
        after: Option<Duration>,
    },
    /// An answer that the contract does not have for this question.
    #[error("the provider answered HTTP {0}")]
    Status(u16),
    /// A body that is not the contract's: which fields are wrong, and why. What it says is left out: it
    /// may repeat a code.
    #[error("the provider answered with a body that is not its profile's: {0}")]
    Malformed(String),
}

/// What a card is worth, as the provider says without redeeming it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Card {
    /// It could be redeemed now.
    Redeemable {
        /// Its value.
        amount: Money,
        /// ISO 3166-1 alpha-2, where the provider says one: two upper-case letters.
        country_code: Option<String>,
    },
    /// It could not, or there is nothing on it.
    NotRedeemable,
}

/// One redemption of a [`Page`]. The text of a failure is left out: it may repeat a code that
/// nobody who reads a page knows, and so nobody could remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The idempotency key that it was asked for by.
    pub key: String,
    /// `succeeded`, `failed` or `cancelled`.
    pub state: String,
    /// The provider's own name for it.
    pub provider_ref: Option<String>,
    /// What was credited, in the currency's minor unit; of a success, always there.
    pub amount_minor: Option<i64>,
    /// ISO 4217.
    pub currency_code: Option<String>,
    /// The account that was credited.
    pub account_ref: Option<String>,
}

impl Listed {
    /// Reads a body. The error names every field that is wrong.
    pub fn read(body: &[u8]) -> Result<Self, String> {
        Self::of(&Object::read(body)?, "")
    }

    /// `at` is what stands before the names of its fields.
    fn of(body: &Object, at: &str) -> Result<Self, String> {
        let name = |name: &str| format!("{at}{name}");
        let key = body.text("key").needed(&name("key"));
        let state = body.text("state").needed(&name("state"));
        let provider_ref = body.text("provider_ref").optional(&name("provider_ref"));
        let amount_minor = body.whole("amount_minor").optional(&name("amount_minor"));
        // What is no currency shows as a difference when it is compared.
        let currency_code = body.text("currency_code").optional(&name("currency_code"));
        let account_ref = body.text("account_ref").optional(&name("account_ref"));
        match (key, state, provider_ref, amount_minor, currency_code, account_ref) {
            (Ok(key), Ok(state), Ok(provider_ref), Ok(amount_minor), Ok(code), Ok(account_ref)) => {
                let currency_code = code.map(|code| code.to_ascii_uppercase());
                Ok(Self { key, state, provider_ref, amount_minor, currency_code, account_ref })
            }
            (a, b, c, d, e, f) => {
                Err(all_wrong([a.err(), b.err(), c.err(), d.err(), e.err(), f.err()]))
            }
        }
    }
}

/// A page of the redemptions that were completed in a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// In the order of their completion.
    pub redemptions: Vec<Listed>,
    /// Asks for the page after this one; empty or missing on the last.
    pub next_page_token: Option<String>,
}

impl Page {
    /// Reads a body. The error names the fields that are wrong, of the first redemption that has any.
    pub(super) fn read(body: &[u8]) -> Result<Self, String> {
        let body = Object::read(body)?;
        let listed = body.objects("redemptions").needed("redemptions")?;
        let redemptions = listed.iter().enumerate();
        let redemptions = redemptions
            .map(|(index, listed)| Listed::of(listed, &format!("redemptions[{index}].")))
            .collect::<Result<_, _>>()?;
        let next_page_token = body.text("next_page_token").optional("next_page_token")?;
        Ok(Self { redemptions, next_page_token })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_names_the_redemption_and_the_field_that_is_wrong() {
        let page = |second: &str| {
            let first =
                r#"{"key":"k","state":"succeeded","amount_minor":5.0,"currency_code":"eur"}"#;
            Page::read(format!("{{\"redemptions\":[{first},{second}]}}").as_bytes())
        };
        let read = page(r#"{"key":"l","state":"failed","failure":{"code":7}}"#).unwrap();
        assert_eq!(read.redemptions[0].amount_minor, Some(5));
        assert_eq!(read.redemptions[0].currency_code.as_deref(), Some("EUR"));
        assert_eq!((read.redemptions.len(), read.next_page_token), (2, None));
        assert_eq!(
            page(r#"{"key":7,"amount_minor":"5"}"#).unwrap_err(),
            "redemptions[1].key is not a text; redemptions[1].state is missing; \
             redemptions[1].amount_minor is not a whole number"
        );
        assert_eq!(page("7").unwrap_err(), "redemptions is not a list of objects");
        assert_eq!(Page::read(b"{}").unwrap_err(), "redemptions is missing");
    }
}
