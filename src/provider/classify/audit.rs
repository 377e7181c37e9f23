//! What an answer says of a redemption to somebody who compares: nothing follows from it.

use std::time::Duration;

use super::{
    super::{
        json::{Field, Json},
        profile::{Answered, Op, OpKind, Profile, Reading, Then, Values},
        question::{CallError, Listed, Said},
    },
    Doubt,
    outcome::{Circumstances, Proof, Secrets, Subject},
    proof::prove,
};
use crate::domain::{money::Currency, redemption::reason};

/// The answer to a question about a redemption. `None`: the provider has never seen it.
pub(in crate::provider) fn looked_up(
    profile: &Profile,
    op: &Op,
    reading: &Reading,
    subject: &Subject,
    is_alone: bool,
) -> Result<Option<Listed>, CallError> {
    let proof = prove(profile, op, reading, subject, &circumstances(is_alone));
    let status = reading.status;
    match &proof {
        Proof::NotFound { .. } => Ok(None),
        Proof::Busy { after, .. } | Proof::NotExecuted { after, .. } => {
            Err(CallError::Busy { status, after: *after })
        }
        Proof::InDoubt { .. } if !(200..300).contains(&status) => Err(CallError::Status(status)),
        Proof::InDoubt { answer } if !reading.is_json => Err(CallError::Malformed(answer.clone())),
        _ => Ok(Some(listed(op, reading, subject, &proof))),
    }
}

/// The redemptions on a page of a list, and how many of them tell no key.
pub(in crate::provider) fn page(
    profile: &Profile,
    values: &Values,
    currency: Currency,
    page: Answered<'_>,
) -> Result<(Vec<Listed>, usize), CallError> {
    let Some(op) = profile.op(OpKind::List) else {
        return Err(CallError::NeverSent("the profile has no op.list".to_owned()));
    };
    match Reading::of_each(op, values, currency, page) {
        Ok(readings) => {
            let count = readings.len();
            let listed =
                readings.iter().filter_map(|it| element(profile, op, it, values, currency));
            let listed: Vec<_> = listed.collect();
            let without_key = count - listed.len();
            Ok((listed, without_key))
        }
        Err(whole) => {
            let subject = Subject::nobodys(values, currency);
            // A list of nothing may be left out.
            let nobodys = looked_up(profile, op, &whole, &subject, true)?;
            match nobodys {
                None => Ok((Vec::new(), 0)),
                Some(_) => {
                    let why = whole.why.unwrap_or_else(|| "its items are not there".to_owned());
                    Err(CallError::Malformed(why))
                }
            }
        }
    }
}

/// A redemption as the provider's own contract writes it: one line of its ledger. `None`: it is none.
pub fn of_line(line: &[u8], values: &Values, currency: Currency) -> Option<Listed> {
    let profile = Profile::built_in();
    let op = profile.op(OpKind::List)?;
    let json = Json::read(line).ok()?;
    let page = Answered { status: 200, body: line, retry_after: None };
    let reading = Reading::of_element(op, values, currency, page, &json, &json);
    element(profile, op, &reading, values, currency)
}

/// An element of a list; `None` when it tells no key.
fn element(
    profile: &Profile,
    op: &Op,
    reading: &Reading,
    values: &Values,
    currency: Currency,
) -> Option<Listed> {
    let Field::Is(_) = &reading.told.key else { return None };
    let mut subject = Subject::nobodys(values, currency);
    subject.own(reading);
    let proof = prove(profile, op, reading, &subject, &circumstances(true));
    Some(listed(op, reading, &subject, &proof))
}

fn listed(op: &Op, reading: &Reading, subject: &Subject, proof: &Proof) -> Listed {
    let said = match (proof, &reading.then) {
        (Proof::Succeeded { .. }, _) => Said::Succeeded,
        // To another account, or in another currency: that is what is compared.
        (Proof::Review { .. }, Then::Succeeded) => Said::Succeeded,
        (Proof::Failed { failure, .. } | Proof::Undone(failure), _) => {
            if failure.reason == reason::CANCELLED { Said::Cancelled } else { Said::Failed }
        }
        // Which of them it is does not matter here, so it may lack a reason.
        (Proof::InDoubt { .. }, Then::Failed { .. }) if op.kind == OpKind::List => Said::Failed,
        (Proof::Processing { .. } | Proof::Duplicate { .. }, _) => Said::Processing,
        _ => Said::Unknown,
    };
    let told = &reading.told;
    let text = |field: &Field<String>| match field {
        Field::Is(text) => Some(text.clone()),
        _ => None,
    };
    let takes_name = op.take.has("ref") || op.take.has("task");
    let name = text(&told.reference).or_else(|| text(&told.task));
    Listed {
        key: text(&told.key).unwrap_or_else(|| subject.key.clone()),
        said,
        provider_ref: takes_name.then(|| name.unwrap_or_default()),
        amount_minor: match told.amount {
            Field::Is(amount) => Some(amount),
            _ => None,
        },
        currency_code: match told.currency {
            Field::Is(currency) => Some(currency.to_string()),
            _ => None,
        },
        account_ref: text(&told.account),
        at: match told.time {
            Field::Is(time) => Some(time),
            _ => None,
        },
    }
}

impl Subject {
    /// Of a question that is about no redemption in particular.
    pub(super) fn nobodys(values: &Values, currency: Currency) -> Self {
        Self {
            key: String::new(),
            task: None,
            account: String::new(),
            currency,
            code: None,
            recorded_at: values.now,
            secrets: Secrets(values.secrets.values().cloned().collect()),
        }
    }
}

/// Of a question that is asked long after: that something is not there proves nothing.
fn circumstances(is_alone: bool) -> Circumstances {
    Circumstances {
        doubt: Doubt::InDoubt,
        in_window: true,
        is_alone,
        since_recorded: Duration::ZERO,
        since_last_send: None,
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;

    fn usd() -> Currency {
        Currency::parse("USD").unwrap()
    }

    fn read(status: u16, body: &str) -> Result<(Vec<Listed>, usize), CallError> {
        let values = Values::at(OffsetDateTime::UNIX_EPOCH);
        let answered = Answered { status, body: body.as_bytes(), retry_after: None };
        page(Profile::built_in(), &values, usd(), answered)
    }

    #[test]
    fn each_element_of_a_page_is_read_by_itself() {
        let body = r#"{"redemptions":[
            {"key":"k","state":"succeeded","amount_minor":5.0,"currency_code":"eur","account_ref":"a"},
            {"key":"l","state":"failed","failure":{"code":7}},
            {"key":"m","state":"failed"},
            {"key":"n","state":"cancelled"},
            {"key":"o","state":"processing"},
            {"key":"p","state":"succeeded","amount_minor":"5","currency_code":"EUR","account_ref":"a"},
            {"key":"q","state":"something"},
            {"state":"succeeded","amount_minor":5,"currency_code":"EUR","account_ref":"a"}]}"#;
        let (listed, without_key) = read(200, body).unwrap();
        let said: Vec<_> = listed.iter().map(|it| (it.key.as_str(), it.said)).collect();
        assert_eq!(
            said,
            [
                ("k", Said::Succeeded),
                ("l", Said::Failed),
                ("m", Said::Failed),
                ("n", Said::Cancelled),
                ("o", Said::Processing),
                // A text of digits is a number of minor units too.
                ("p", Said::Succeeded),
                ("q", Said::Unknown),
            ]
        );
        assert_eq!(without_key, 1);
        assert_eq!(listed[0].amount_minor, Some(5));
        assert_eq!(listed[0].currency_code.as_deref(), Some("EUR"));
        assert_eq!(listed[0].account_ref.as_deref(), Some("a"));
    }

    #[test]
    fn a_page_that_is_none_is_an_error_and_never_an_empty_one() {
        assert_eq!(read(200, r#"{"redemptions":[]}"#), Ok((Vec::new(), 0)));
        for body in ["7", "{}", "<html>", r#"{"redemptions":{}}"#, ""] {
            assert!(matches!(read(200, body), Err(CallError::Malformed(_))), "{body}");
        }
        assert_eq!(read(500, r#"{"redemptions":[]}"#), Err(CallError::Status(500)));
        assert_eq!(read(404, r#"{"redemptions":[]}"#), Err(CallError::Status(404)));
        let after = Some(Duration::from_millis(300));
        let busy = read(503, r#"{"retry_after_ms":300}"#);
        assert_eq!(busy, Err(CallError::Busy { status: 503, after }));
    }

    #[test]
    fn a_line_of_a_ledger_is_an_element_of_the_contracts_list() {
        let values = Values::at(OffsetDateTime::UNIX_EPOCH);
        let line = |text: &str| of_line(text.as_bytes(), &values, usd());
        let told = line(
            r#"{"key":"k","state":"succeeded","amount_minor":5,"currency_code":"EUR","account_ref":null,"provider_ref":"r"}"#,
        );
        let told = told.unwrap();
        // Without the account nothing could be booked by it, but here it is compared.
        assert_eq!((told.said, told.provider_ref.as_deref()), (Said::Unknown, Some("r")));
        for none in ["{}", "7", "", "code", r#"{"state":"succeeded"}"#, r#"{"key":"#] {
            assert_eq!(line(none), None, "{none}");
        }
    }
}
