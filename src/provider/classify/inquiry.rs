//! What the answer to an inquiry says: what a card is worth.

use std::time::Duration;

use super::{
    super::{
        Answer, HttpAnswer,
        profile::{Answered, OpKind, Profile, Values},
        question::{CallError, Card},
    },
    Doubt,
    condition::condition,
    outcome::{Circumstances, Proof, Subject},
    proof::judge,
};
use crate::domain::{money::Currency, provider::Condition, redemption::CardCode};

/// What the answer to an inquiry brought.
#[derive(Clone, Debug)]
pub struct Inquired {
    /// What the card is worth. `None`: the provider does not know it.
    pub card: Result<Option<Card>, CallError>,
    /// The provider's reason where the card cannot be redeemed, if it tells one.
    pub failure: Option<String>,
    /// What the call shows of the provider.
    pub condition: Condition,
}

impl Inquired {
    /// Nothing came back.
    pub(in crate::provider) fn unanswered(answer: &Answer, why: CallError) -> Self {
        Self { card: Err(why), failure: None, condition: condition(answer, None) }
    }
}

/// Says what a card is worth, by a profile. `currency` is that of a card for which the profile tells none.
pub(in crate::provider) fn inquired(
    profile: &Profile,
    values: &Values,
    code: &CardCode,
    currency: Currency,
    http: &HttpAnswer,
) -> Inquired {
    let tells_currency = profile.op(OpKind::Inquire).is_some_and(|op| op.take.has("currency"));
    let currency = if tells_currency { Currency::NONE } else { currency };
    let proof = proven(profile, values, code, currency, http);
    let failure = match &proof {
        Proof::Failed { failure, .. } => Some(failure.reason.clone()),
        _ => None,
    };
    let condition = condition(&Answer::Http(http.clone()), Some(&proof));
    Inquired { card: card(proof, http), failure, condition }
}

fn proven(
    profile: &Profile,
    values: &Values,
    code: &CardCode,
    currency: Currency,
    http: &HttpAnswer,
) -> Proof {
    let subject = Subject { code: Some(code.clone()), ..Subject::nobodys(values, currency) };
    let circumstances = Circumstances {
        doubt: Doubt::InDoubt,
        in_window: true,
        is_alone: http.first_on_connection,
        since_recorded: Duration::ZERO,
        since_last_send: None,
    };
    let answered =
        Answered { status: http.status, body: &http.body, retry_after: http.retry_after };
    let pages = (&[answered][..], true);
    judge(profile, OpKind::Inquire, values, &subject, &circumstances, pages)
}

fn card(proof: Proof, http: &HttpAnswer) -> Result<Option<Card>, CallError> {
    let malformed = |why: &str| Err(CallError::Malformed(why.to_owned()));
    match proof {
        Proof::Succeeded { amount, .. } if amount.currency == Currency::NONE => {
            malformed("currency is missing")
        }
        Proof::Succeeded { amount, country, .. } => match country.as_deref().map(country_code) {
            Some(Err(why)) => malformed(why),
            Some(Ok(country_code)) => Ok(Some(Card::Redeemable { amount, country_code })),
            None => Ok(Some(Card::Redeemable { amount, country_code: None })),
        },
        Proof::Failed { .. } => Ok(Some(Card::NotRedeemable)),
        Proof::NotFound { .. } => Ok(None),
        Proof::Busy { after, .. } | Proof::NotExecuted { after, .. } => {
            Err(CallError::Busy { status: http.status, after })
        }
        Proof::InDoubt { answer } if (200..300).contains(&http.status) => {
            Err(CallError::Malformed(answer))
        }
        _ => Err(CallError::Status(http.status)),
    }
}

/// Two letters; empty is as good as missing.
fn country_code(text: &str) -> Result<Option<String>, &'static str> {
    match text.as_bytes() {
        [] => Ok(None),
        [a, b] if a.is_ascii_alphabetic() && b.is_ascii_alphabetic() => {
            Ok(Some(text.to_ascii_uppercase()))
        }
        _ => Err("country is not a country's two letters"),
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;
    use crate::domain::money::Money;

    fn card(status: u16, body: &str) -> Result<Option<Card>, CallError> {
        let body = body.to_owned().into();
        let http = HttpAnswer {
            status,
            retry_after: None,
            quota_used_up: None,
            first_on_connection: true,
            body,
        };
        let code = CardCode::parse("GIFT-1234").unwrap();
        let values = Values::at(OffsetDateTime::UNIX_EPOCH);
        let eur = Currency::parse("EUR").unwrap();
        inquired(Profile::built_in(), &values, &code, eur, &http).card
    }

    #[test]
    fn a_card_is_read_as_it_is_meant_or_its_wrong_fields_are_named() {
        let worth = |country: Option<&str>| {
            let currency = Currency::parse("EUR").unwrap();
            let amount = Money { amount_minor: 500, currency };
            Ok(Some(Card::Redeemable { amount, country_code: country.map(str::to_owned) }))
        };
        let whole = r#"{"redeemable":true,"amount_minor":500,"currency_code":"EUR"}"#;
        for (body, country) in [
            (whole.to_owned(), None),
            (whole.replace("500", "500.0").replace("EUR", "eur"), None),
            (format!("\u{feff}{}", whole.replace("500", "5e2")), None),
            (whole.replace('}', ",\"country_code\":\"\"}"), None),
            (whole.replace('}', ",\"country_code\":\"de\"}"), Some("DE")),
        ] {
            assert_eq!(card(200, &body), worth(country), "{body}");
        }
        for body in [
            r#"{"redeemable":false}"#.to_owned(),
            r#"{"redeemable":false,"amount_minor":"?","currency_code":"?"}"#.to_owned(),
            whole.replace("500", "0"),
        ] {
            assert_eq!(card(200, &body), Ok(Some(Card::NotRedeemable)), "{body}");
        }
        for (body, wrong) in [
            (whole.replace("500", "-1"), "amount is no amount"),
            (whole.replace("500", "5.5"), "amount is no amount"),
            (whole.replace("EUR", "GIFT-1234"), "currency is not a"),
            (whole.replace('}', ",\"country_code\":\"GIFT-1234\"}"), "country is not a"),
            (whole.replace("true", "\"yes\""), "does not have here"),
            (r#"{"redeemable":true,"currency_code":"EUR"}"#.to_owned(), "amount is missing"),
            (r#"{"redeemable":true,"amount_minor":5}"#.to_owned(), "currency is missing"),
            ("<html>GIFT-1234".to_owned(), "begins like HTML"),
        ] {
            match card(200, &body) {
                Err(CallError::Malformed(why)) => {
                    assert!(why.contains(wrong) && !why.contains("GIFT"), "{body}: {why}");
                }
                other => panic!("{body}: {other:?}"),
            }
        }
        assert_eq!(card(404, "<html>"), Ok(None));
        assert_eq!(card(500, "{}"), Err(CallError::Status(500)));
        let after = Some(Duration::from_millis(300));
        let busy = card(503, r#"{"retry_after_ms": 300}"#);
        assert_eq!(busy, Err(CallError::Busy { status: 503, after }));
    }
}
