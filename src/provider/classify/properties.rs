//! Properties that hold for every answer, likely or not.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    tests::{CALLS, ID, OTHER, http, raw, reused, step},
    *,
};

/// A value for a field: often the right one, so that whole answers come about.
fn field(values: Vec<Value>) -> impl Strategy<Value = Value> {
    prop_oneof![
        8 => proptest::sample::select(values),
        1 => Just(Value::Null),
        1 => any::<i64>().prop_map(Value::from),
        1 => any::<String>().prop_map(Value::from),
    ]
}

fn body() -> impl Strategy<Value = Value> {
    let states = ["processing", "succeeded", "failed", "cancelled"];
    let failure = json!({"code": "X", "message": "", "code_spent": false});
    (
        field(vec![json!(ID), json!(OTHER), Value::Null]),
        field(states.map(Value::from).to_vec()),
        field(vec![json!(5000)]),
        field(vec![json!("EUR"), json!("USD")]),
        field(vec![json!("acc-1"), json!("acc-2")]),
        field(vec![json!("P-1")]),
        field(vec![failure, Value::Null]),
        field(vec![json!(false), json!(true)]),
    )
        .prop_map(
            |(key, state, amount, currency, account, provider_ref, failure, executed)| {
                json!({
                    "key": key, "state": state, "amount_minor": amount, "currency_code": currency,
                    "account_ref": account, "provider_ref": provider_ref, "failure": failure,
                    "executed": executed,
                })
            },
        )
}

fn status() -> impl Strategy<Value = u16> {
    prop_oneof![
        4 => proptest::sample::select(vec![200u16, 201, 202, 402, 404, 409, 410, 422, 429, 503]),
        1 => 100u16..600,
    ]
}

proptest! {
    /// In doubt, whatever is answered, only our own key settles anything, and nothing says that a
    /// send would be safe.
    #[test]
    fn doubt_is_sticky(status in status(), body in body(), call in proptest::sample::select(&CALLS)) {
        match step(call, Doubt::InDoubt, &http(status, body.clone())) {
            Step::SendAgain { .. } => prop_assert!(false, "sends again"),
            Step::Settle(_) => prop_assert_eq!(&body["key"], ID),
            _ => {}
        }
    }

    /// On a connection that carried another request before, only our own key is proof of anything.
    #[test]
    fn a_connection_that_is_used_again_proves_nothing(
        status in status(), body in body(), call in proptest::sample::select(&CALLS)
    ) {
        match step(call, Doubt::FirstSend, &reused(status, &body)) {
            Step::SendAgain { .. } | Step::Settle(_) => prop_assert_eq!(&body["key"], ID),
            _ => {}
        }
    }

    /// A success is never taken from anything but a whole one by our key.
    #[test]
    fn a_success_is_whole(status in status(), body in body(), call in proptest::sample::select(&CALLS)) {
        let step = step(call, Doubt::FirstSend, &http(status, body.clone()));
        if let Step::Settle(Verdict::Succeeded { amount, .. }) = step {
            prop_assert!(status == 200 || status == 201);
            prop_assert_eq!(&body["key"], ID);
            prop_assert_eq!(&body["state"], "succeeded");
            prop_assert_eq!(&body["account_ref"], "acc-1");
            prop_assert_eq!(&body["currency_code"], "EUR");
            prop_assert_eq!(&body["amount_minor"], amount.amount_minor);
        }
    }

    /// No answer, however odd, is more than an answer.
    #[test]
    fn no_text_breaks_it(status in 0u16..1000, text in any::<String>()) {
        for call in CALLS {
            let step = step(call, Doubt::FirstSend, &raw(status, &text));
            let succeeded = matches!(step, Step::Settle(Verdict::Succeeded { .. }));
            prop_assert!(!succeeded);
        }
    }
}
