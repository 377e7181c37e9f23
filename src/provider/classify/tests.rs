//! The built-in contract, by its profile: every answer that it has, on a first send and in doubt.

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::*;
use crate::domain::{
    id::{AccountId, RedemptionId},
    money::{Currency, MAX_AMOUNT_MINOR, Money},
    redemption::{AccountFacts, CardCode, Known},
};

pub(super) const ID: &str = "0190163d-8694-739b-aea5-966c26f8ad90";
pub(super) const OTHER: &str = "0190163d-8694-739b-aea5-966c26f8ad91";
const CODE: &str = "SECR-ET12-3456";
const BOTH: [Doubt; 2] = [Doubt::FirstSend, Doubt::InDoubt];
pub(super) const CALLS: [Call; 3] = [Call::Send, Call::LookUp, Call::Cancel];

fn ask() -> Ask {
    let currency = Currency::parse("EUR").unwrap();
    Ask {
        redemption_id: RedemptionId::parse(ID).unwrap(),
        code: CardCode::parse(CODE).unwrap(),
        account_id: AccountId::parse("acc-1").unwrap(),
        expected: Some(Money { amount_minor: 5000, currency }),
        currency,
        not_after: "2026-11-01T00:00:00Z".to_owned(),
        account: AccountFacts::default(),
        known: Known::at_first(OffsetDateTime::now_utc()),
    }
}

pub(super) fn http(status: u16, body: Value) -> Answer {
    raw(status, &body.to_string())
}

pub(super) fn raw(status: u16, body: &str) -> Answer {
    answered(status, body, true)
}

/// The same on a connection that carried another request before.
pub(super) fn reused(status: u16, body: &Value) -> Answer {
    answered(status, &body.to_string(), false)
}

fn answered(status: u16, body: &str, first_on_connection: bool) -> Answer {
    let body = body.to_owned().into();
    Answer::Http(HttpAnswer {
        status,
        retry_after: None,
        quota_used_up: None,
        first_on_connection,
        body,
    })
}

/// A well-formed success, with some fields replaced.
fn success(changes: Value) -> Value {
    let mut body = json!({
        "key": ID, "provider_ref": "P-1", "state": "succeeded", "amount_minor": 5000,
        "currency_code": "EUR", "account_ref": "acc-1", "balance_minor": 5000,
    });
    for (name, value) in changes.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

/// A well-formed refusal, with some fields replaced.
fn refusal(changes: Value) -> Value {
    let mut body = json!({
        "key": ID, "state": "failed",
        "failure": {"code": "CODE_USED", "message": "used before", "code_spent": true},
    });
    for (name, value) in changes.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

pub(super) fn step(call: Call, doubt: Doubt, answer: &Answer) -> Step {
    classify(Profile::built_in(), &BTreeMap::new(), &ask(), call, doubt, answer)
}

fn eur(amount_minor: i64) -> Money {
    Money { amount_minor, currency: Currency::parse("EUR").unwrap() }
}

fn used() -> Step {
    Step::Settle(Verdict::failed(Failure {
        reason: "CODE_USED".to_owned(),
        message: "used before".to_owned(),
        code_spent: true,
    }))
}

fn is_in_doubt(step: &Step) -> bool {
    matches!(step, Step::InDoubt { .. })
}

#[track_caller]
fn always_in_doubt(answer: &Answer) {
    for doubt in BOTH {
        for call in CALLS {
            let step = step(call, doubt, answer);
            assert!(is_in_doubt(&step), "{call:?} {doubt:?} {answer:?}: {step:?}");
        }
    }
}

#[test]
fn never_sent_is_sent_again_unless_something_was_sent_before() {
    let answer = Answer::NeverSent("refused".to_owned());
    match step(Call::Send, Doubt::FirstSend, &answer) {
        Step::SendAgain { failure, after: None } => {
            assert_eq!(failure.reason, reason::PROVIDER_UNREACHABLE);
            assert!(!failure.code_spent);
        }
        other => panic!("{other:?}"),
    }
    assert!(is_in_doubt(&step(Call::Send, Doubt::InDoubt, &answer)));
    for call in [Call::LookUp, Call::Cancel] {
        for doubt in BOTH {
            assert!(is_in_doubt(&step(call, doubt, &answer)), "{call:?} {doubt:?}");
        }
    }
}

#[test]
fn what_cannot_be_sent_has_failed_unless_something_was_sent_before() {
    for (why, wanted) in [
        (Unusable::Missing("account.secret.pin".to_owned()), reason::VALUE_MISSING),
        (Unusable::Unfit("key".to_owned(), "it is no number"), reason::VALUE_UNUSABLE),
    ] {
        let answer = Answer::Unsendable(why);
        match step(Call::Send, Doubt::FirstSend, &answer) {
            Step::Settle(Verdict::Failed { failure, .. }) => {
                assert_eq!((&*failure.reason, failure.code_spent), (wanted, false));
            }
            other => panic!("{other:?}"),
        }
        assert!(is_in_doubt(&step(Call::Send, Doubt::InDoubt, &answer)));
        assert!(is_in_doubt(&step(Call::LookUp, Doubt::FirstSend, &answer)));
    }
}

#[test]
fn a_success_as_asked_is_a_success_whoever_asked() {
    let wanted =
        Step::Settle(Verdict::Succeeded { amount: eur(5000), provider_ref: "P-1".to_owned() });
    for doubt in BOTH {
        for call in CALLS {
            assert_eq!(step(call, doubt, &http(200, success(json!({})))), wanted);
        }
        assert_eq!(step(Call::Send, doubt, &http(201, success(json!({})))), wanted);
    }
}

#[test]
fn another_amount_is_a_success_with_what_was_credited() {
    for amount in [0, 1, 4999, MAX_AMOUNT_MINOR] {
        let answer = http(201, success(json!({"amount_minor": amount})));
        for doubt in BOTH {
            match step(Call::Send, doubt, &answer) {
                Step::Settle(Verdict::Succeeded { amount: credited, .. }) => {
                    assert_eq!(credited, eur(amount));
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn another_account_or_currency_needs_review() {
    let cases = [
        (json!({"account_ref": "acc-2"}), reason::ACCOUNT_MISMATCH),
        (json!({"currency_code": "USD"}), reason::CURRENCY_MISMATCH),
    ];
    for (change, wanted) in cases {
        for doubt in BOTH {
            match step(Call::Send, doubt, &http(200, success(change.clone()))) {
                Step::Settle(Verdict::NeedsReview {
                    failure,
                    amount: Some(amount),
                    provider_ref,
                }) => {
                    assert_eq!(failure.reason, wanted);
                    assert_eq!((amount.amount_minor, &*provider_ref), (5000, "P-1"));
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn a_refusal_counts_in_doubt_only_by_our_key() {
    let nameless = refusal(json!({"key": null}));
    for status in [200, 402] {
        for doubt in BOTH {
            for call in CALLS {
                assert_eq!(step(call, doubt, &http(status, refusal(json!({})))), used());
                let step = step(call, doubt, &http(status, nameless.clone()));
                let first = (call, doubt) == (Call::Send, Doubt::FirstSend);
                assert_eq!(step == used(), first, "{status} {call:?} {doubt:?}");
                assert_eq!(is_in_doubt(&step), !first);
            }
        }
        always_in_doubt(&http(status, refusal(json!({"key": OTHER}))));
    }
    assert_eq!(
        step(Call::Send, Doubt::InDoubt, &http(402, refusal(json!({"state": null})))),
        used()
    );
}

#[test]
fn processing_and_in_progress_are_looked_up() {
    let answers = [
        (http(202, json!({"state": "processing", "poll_after_ms": 250})), Some(250)),
        (raw(202, ""), None),
        (raw(202, "garbage"), None),
        (http(200, json!({"key": ID, "state": "processing"})), None),
        (http(409, json!({"error": "in progress"})), None),
        (raw(409, ""), None),
    ];
    for (answer, wanted_ms) in answers {
        for doubt in BOTH {
            for call in CALLS {
                match step(call, doubt, &answer) {
                    Step::LookUp { after, .. } => {
                        assert_eq!(after, wanted_ms.map(Duration::from_millis));
                    }
                    other => panic!("{answer:?}: {other:?}"),
                }
            }
        }
    }
}

#[test]
fn not_executed_is_sent_again_on_a_first_send_and_looked_up_in_doubt() {
    for status in [429, 503] {
        let body = json!({"executed": false, "retry_after_ms": 170, "error": {"not": "a text"}});
        let answer = http(status, body);
        match step(Call::Send, Doubt::FirstSend, &answer) {
            Step::SendAgain { failure, after } => {
                assert_eq!(failure.reason, reason::PROVIDER_BUSY);
                assert!(!failure.code_spent);
                assert_eq!(after, Some(Duration::from_millis(170)));
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(step(Call::Send, Doubt::InDoubt, &answer), Step::Busy { .. }));
        for call in [Call::LookUp, Call::Cancel] {
            for doubt in BOTH {
                assert!(matches!(step(call, doubt, &answer), Step::Busy { .. }));
            }
        }
        for body in ["", "{}", r#"{"executed":true}"#, r#"{"executed":"false"}"#] {
            always_in_doubt(&raw(status, body));
        }
    }
}

#[test]
fn the_wait_that_is_asked_for_is_bounded() {
    for (retry_after, wanted) in [(2, 2), (u64::MAX, 3600)] {
        let answer = Answer::Http(HttpAnswer {
            status: 503,
            retry_after: Some(Duration::from_secs(retry_after)),
            quota_used_up: None,
            first_on_connection: true,
            body: r#"{"executed":false}"#.into(),
        });
        match step(Call::Send, Doubt::FirstSend, &answer) {
            Step::SendAgain { after, .. } => assert_eq!(after, Some(Duration::from_secs(wanted))),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_cancelled_key_is_a_failure_that_spent_nothing() {
    let is_cancelled = |step: &Step| match step {
        Step::Settle(Verdict::Failed { failure, .. }) => {
            failure.reason == reason::CANCELLED && !failure.code_spent
        }
        _ => false,
    };
    let tombstone = json!({"key": ID, "state": "cancelled"});
    for doubt in BOTH {
        assert!(is_cancelled(&step(Call::Send, doubt, &http(410, tombstone.clone()))));
        for call in CALLS {
            assert!(is_cancelled(&step(call, doubt, &http(200, tombstone.clone()))));
        }
    }
    let keyless = json!({"state": "cancelled"});
    assert!(is_cancelled(&step(Call::Send, Doubt::FirstSend, &http(410, keyless.clone()))));
    assert!(is_in_doubt(&step(Call::Send, Doubt::InDoubt, &http(410, keyless))));
    assert!(is_cancelled(&step(Call::Send, Doubt::InDoubt, &http(410, json!({"key": ID})))));
    // Anybody between may say 410.
    for body in ["", "{}", "<html><body>Gone</body></html>", "[]", r#"{"error":"GONE"}"#] {
        always_in_doubt(&raw(410, body));
    }
    always_in_doubt(&http(410, json!({"key": OTHER, "state": "cancelled"})));
    always_in_doubt(&http(410, success(json!({}))));
    always_in_doubt(&http(200, json!({"state": "cancelled"})));
}

#[test]
fn not_found_is_an_answer_to_a_look_up_alone() {
    for doubt in BOTH {
        assert_eq!(step(Call::LookUp, doubt, &raw(404, "")), Step::NotFound);
        assert!(is_in_doubt(&step(Call::Send, doubt, &raw(404, ""))));
        assert!(is_in_doubt(&step(Call::Cancel, doubt, &raw(404, ""))));
    }
}

#[test]
fn whatever_proves_nothing_is_in_doubt() {
    always_in_doubt(&Answer::Lost("timed out".to_owned()));
    for status in [204, 206, 301, 302, 307, 400, 401, 403, 408, 415, 418, 422, 500, 502, 504] {
        always_in_doubt(&raw(status, ""));
        always_in_doubt(&http(status, success(json!({}))));
        always_in_doubt(&http(status, json!({"executed": false})));
    }
}

#[test]
fn a_malformed_body_is_in_doubt() {
    let successes = [
        json!({"key": OTHER}),
        json!({"key": "not a key"}),
        json!({"state": null}),
        json!({"state": "SUCCEEDED"}),
        json!({"state": "exploded"}),
        json!({"amount_minor": -1}),
        json!({"amount_minor": MAX_AMOUNT_MINOR + 1}),
        json!({"amount_minor": 50.5}),
        json!({"amount_minor": "5000.0"}),
        json!({"amount_minor": null}),
        json!({"currency_code": "EURO"}),
        json!({"currency_code": 978}),
        json!({"key": 7}),
        json!({"failure": "none"}),
        json!({"failure": false}),
        json!({"currency_code": null}),
        json!({"account_ref": null}),
        json!({"provider_ref": null}),
        json!({"provider_ref": ""}),
        json!({"failure": {"code": "X", "message": "", "code_spent": false}}),
    ];
    for change in successes {
        always_in_doubt(&http(200, success(change)));
    }
    let refusals = [
        json!({"failure": null}),
        json!({"failure": {}}),
        json!({"failure": {"code": "X", "message": "no word of the code"}}),
        json!({"failure": {"code": "", "message": "", "code_spent": false}}),
        json!({"failure": {"code": "X", "message": "", "code_spent": "no"}}),
        json!({"state": "succeeded"}),
        json!({"state": "cancelled"}),
    ];
    for change in refusals {
        always_in_doubt(&http(402, refusal(change)));
    }
    for body in ["", "null", "[]", "{}", "7", "{\"key\":", "<html>", "\u{0}"] {
        always_in_doubt(&raw(200, body));
        always_in_doubt(&raw(402, body));
    }
}

/// On a connection that carried another request before, an answer that does not name its request may be to that
/// one, or to none.
#[test]
fn an_answer_without_our_key_is_definite_only_on_a_connection_of_its_own() {
    let cancelled = json!({"state": "cancelled"});
    for (status, whole) in [(402, refusal(json!({}))), (200, refusal(json!({}))), (410, cancelled)]
    {
        let mut keyless = whole.clone();
        keyless.as_object_mut().unwrap().remove("key");
        let mut named = keyless.clone();
        named["key"] = json!(ID);
        for (body, first, wanted) in [
            (&keyless, true, "settled"),
            (&keyless, false, "unproven"),
            (&named, true, "settled"),
            (&named, false, "settled"),
        ] {
            let answer = answered(status, &body.to_string(), first);
            let found = match step(Call::Send, Doubt::FirstSend, &answer) {
                Step::Settle(Verdict::Failed { .. }) => "settled",
                Step::Unproven { .. } => "unproven",
                other => panic!("{status} {body}: {other:?}"),
            };
            assert_eq!(found, wanted, "{status} {body} first: {first}");
        }
        assert!(is_in_doubt(&step(Call::Send, Doubt::InDoubt, &reused(status, &keyless))));
    }
    for status in [429, 503] {
        let told = |body: &Value, first| {
            step(Call::Send, Doubt::FirstSend, &answered(status, &body.to_string(), first))
        };
        let keyless = json!({"executed": false});
        assert!(matches!(told(&keyless, true), Step::SendAgain { .. }));
        assert!(matches!(told(&keyless, false), Step::Busy { .. }));
        let ours = json!({"executed": false, "key": ID});
        assert!(matches!(told(&ours, false), Step::SendAgain { .. }));
        let another = json!({"executed": false, "key": OTHER});
        assert!(is_in_doubt(&told(&another, true)));
    }
    // What our own key tells is no other's, wherever it comes.
    let credited = step(Call::Send, Doubt::FirstSend, &reused(201, &success(json!({}))));
    assert!(matches!(credited, Step::Settle(Verdict::Succeeded { .. })));
}

#[test]
fn what_loses_nothing_is_taken_as_it_is_meant() {
    let wanted =
        Step::Settle(Verdict::Succeeded { amount: eur(5000), provider_ref: "P-1".to_owned() });
    let whole = success(json!({})).to_string();
    for body in [
        whole.replace("5000", "5000.0"),
        whole.replace("5000", "5e3"),
        whole.replace("EUR", "eur"),
        whole.replace("EUR", "Eur"),
        format!("\u{feff}{whole}\r\n"),
        whole.replace("\"balance_minor\":5000", "\"balance_minor\":\"12\""),
        whole.replace('{', "{\"poll_after_ms\": \"soon\", "),
        whole.replace('{', &format!("{{\"key\": \"{ID}\", \"failure\": null, ")),
    ] {
        for doubt in BOTH {
            assert_eq!(step(Call::Send, doubt, &raw(201, &body)), wanted, "{body}");
        }
    }
    let refused = refusal(json!({"amount_minor": "?", "balance_minor": "12"}));
    assert_eq!(step(Call::Send, Doubt::FirstSend, &http(402, refused)), used());
    let mut refused = refusal(json!({}));
    refused["failure"]["message"] = json!({"not": "a text"});
    let step = step(Call::Send, Doubt::FirstSend, &http(402, refused));
    assert!(
        matches!(step, Step::Settle(Verdict::Failed { failure, .. }) if failure.message.is_empty())
    );
}

#[test]
fn a_field_that_is_given_twice_with_different_values_settles_nothing() {
    let whole = success(json!({})).to_string();
    let refused = refusal(json!({})).to_string();
    for (status, body) in [
        (201, whole.replace('{', "{\"state\": \"failed\", ")),
        (201, whole.replace('{', "{\"amount_minor\": 1, ")),
        (201, whole.replace('{', &format!("{{\"key\": \"{OTHER}\", "))),
        (201, whole.replace('{', "{\"key\": null, ")),
        (402, refused.replace("\"code_spent\"", "\"code_spent\": false, \"code_spent\"")),
        (402, refused.replacen('{', "{\"state\": \"succeeded\", ", 1)),
    ] {
        for doubt in BOTH {
            let step = step(Call::Send, doubt, &raw(status, &body));
            assert!(is_in_doubt(&step), "{body}: {step:?}");
        }
    }
    let busy = r#"{"executed": false, "executed": true}"#;
    assert!(is_in_doubt(&step(Call::Send, Doubt::FirstSend, &raw(503, busy))));
}

#[test]
fn what_is_wrong_is_named_by_its_field_and_not_by_what_it_says() {
    let told = |status, body: &str| match step(Call::Send, Doubt::FirstSend, &raw(status, body)) {
        Step::InDoubt { answer, .. } => answer,
        other => panic!("{body}: {other:?}"),
    };
    let of_success = |change| told(201, &success(change).to_string());
    assert_eq!(of_success(json!({"amount_minor": 1000.5})), "HTTP 201, but amount is no amount");
    assert_eq!(of_success(json!({"account_ref": null})), "HTTP 201, but account is missing");
    let unknown = "HTTP 201, but which the profile does not have here";
    assert_eq!(of_success(json!({"state": CODE})), unknown);
    let all = json!({
        "provider_ref": "", "account_ref": null, "amount_minor": CODE, "currency_code": CODE,
    });
    assert_eq!(
        of_success(all),
        "HTTP 201, but account is missing; currency is not a currency's three letters; amount is no amount; ref \
         is empty"
    );
    let bounds = of_success(json!({"amount_minor": MAX_AMOUNT_MINOR + 1}));
    assert_eq!(bounds, "HTTP 201, but amount is no amount");
    let keyless = step(Call::LookUp, Doubt::InDoubt, &http(200, success(json!({"key": null}))));
    assert_eq!(
        keyless,
        Step::InDoubt { answer: "HTTP 200, but key is missing".to_owned(), is_answer: true }
    );
    assert_eq!(told(402, "<html>"), "HTTP 402, but the body is not JSON but begins like HTML");
    assert_eq!(told(200, ""), "HTTP 200, but the body is empty");
    assert_eq!(
        told(201, "{\"key\":\"half of an ans"),
        "HTTP 201, but the body is JSON that breaks off"
    );
}

#[test]
fn a_wait_that_is_asked_for_is_never_shorter_than_the_least() {
    for body in [
        json!({"executed": false, "retry_after_ms": 0}),
        json!({"executed": false, "retry_after_ms": 0.0}),
        json!({"executed": false, "retry_after_ms": 1}),
    ] {
        match step(Call::Send, Doubt::FirstSend, &http(503, body)) {
            Step::SendAgain { after, .. } => assert_eq!(after, Some(MIN_AFTER)),
            other => panic!("{other:?}"),
        }
    }
    for (poll, wanted) in [
        (json!(0), Some(MIN_AFTER)),
        (json!(-1), None),
        (json!("soon"), None),
        (json!(1e300), Some(MAX_AFTER)),
        (json!(250.0), Some(Duration::from_millis(250))),
    ] {
        let answer = http(202, json!({"state": "processing", "poll_after_ms": poll}));
        match step(Call::Send, Doubt::FirstSend, &answer) {
            Step::LookUp { after, .. } => assert_eq!(after, wanted, "{poll}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_code_is_in_no_step() {
    let told = format!("no {CODE}, secret123456, se-cr-et-12-34-56\u{7}");
    let failure = json!({"code": told, "message": told, "code_spent": true});
    let answers = [
        http(402, refusal(json!({"failure": failure}))),
        http(500, json!({"message": told, "error": told})),
        http(503, json!({"executed": false, "message": told})),
        http(409, json!({"error": told})),
        http(422, json!({"error": told})),
        http(201, success(json!({"provider_ref": told}))),
        http(201, success(json!({"account_ref": told}))),
        raw(500, &told),
    ];
    for answer in &answers {
        for doubt in BOTH {
            for call in CALLS {
                let text = format!("{:?} {answer:?}", step(call, doubt, answer));
                let text = text.to_uppercase().replace('-', "");
                assert!(!text.contains("SECRET"), "{text}");
            }
        }
    }
}
