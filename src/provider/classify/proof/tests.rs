//! What answers prove, by profiles that were made to be weak. The rules that lost or doubled cards when they were
//! left out are switched off at the end, each by its guard, and their tests must fail then.

use std::{collections::BTreeSet, time::Duration};

use time::OffsetDateTime;

use super::*;
use crate::{
    domain::{money::Currency, redemption::CardCode},
    provider::{
        classify::Secrets,
        profile::{Answered, BUILT_IN, Profile, Values},
    },
};

pub(super) const KEY: &str = "0190163d-8694-739b-aea5-966c26f8ad90";
pub(super) const NOW: i64 = 1_800_000_000;

/// A profile with every op, which takes what `take` says and has this deduplication.
pub(super) fn profile(dedup: &str, take: &str, ends_doubt: bool) -> Profile {
    let text = format!(
        r#"id = "p"
version = 1
[http]
base = "https://provider.test"
[identity]
key = "uuid"
dedup = "{dedup}"
window = "24h"
[times]
visibility = "5s"
max_processing = "2m"
[op.send]
path = "/r/{{{{ key }}}}"
body = {{ code = "{{{{ code }}}}" }}
as = "look_up"
[op.look_up]
path = "/r/{{{{ key }}}}"
take = {{ amount = {{ at = "/amount", unit = "minor" }}, task = "/task", {take} }}
ends_doubt = {ends_doubt}
[[op.look_up.rule]]
when = {{ eq = {{ "/state" = "ok" }} }}
then = "succeeded"
[[op.look_up.rule]]
when = {{ eq = {{ "/state" = "no" }} }}
then = {{ failed = {{ spent = false, reason = "NO" }} }}
[[op.look_up.rule]]
when = {{ eq = {{ "/state" = "busy" }} }}
then = "not_executed"
[[op.look_up.rule]]
when = {{ eq = {{ "/state" = "working" }} }}
then = "processing"
[[op.look_up.rule]]
when = {{ status = [404] }}
then = "not_found"
[op.find]
path = "/cards/{{{{ code }}}}"
take = {{ amount = {{ at = "/amount", unit = "minor" }}, account = "/user", time = {{ at = "/at", unit = "epoch" }}, task = "/task" }}
ends_doubt = {ends_doubt}
[[op.find.rule]]
when = {{ eq = {{ "/state" = "used" }} }}
then = "succeeded"
[[op.find.rule]]
when = {{ eq = {{ "/state" = "working" }} }}
then = "processing"
[[op.find.rule]]
when = {{ eq = {{ "/state" = "by_another" }} }}
then = {{ failed = {{ spent = true, reason = "SPENT" }} }}
[[op.find.rule]]
when = {{ eq = {{ "/state" = "unknown" }} }}
then = {{ failed = {{ spent = false, reason = "UNKNOWN" }} }}
"#
    );
    Profile::parse(&text).unwrap_or_else(|faults| panic!("{faults:#?}"))
}

pub(super) fn subject() -> Subject {
    Subject {
        key: KEY.to_owned(),
        task: None,
        account: "acc-1".to_owned(),
        currency: Currency::parse("USD").unwrap(),
        code: CardCode::parse("SECRET-1234").ok(),
        recorded_at: OffsetDateTime::from_unix_timestamp(NOW).unwrap(),
        secrets: Secrets(vec!["hunter2".to_owned()]),
    }
}

pub(super) fn circumstances(doubt: Doubt) -> Circumstances {
    Circumstances {
        doubt,
        in_window: true,
        is_alone: true,
        since_recorded: Duration::from_secs(1),
        since_last_send: Some(Duration::from_secs(1)),
    }
}

fn values() -> Values {
    let mut values = Values::at(OffsetDateTime::from_unix_timestamp(NOW).unwrap());
    values.key = Some(KEY.to_owned());
    values.code = Some("SECRET-1234".to_owned());
    values
}

fn proof(
    profile: &Profile,
    kind: OpKind,
    circumstances: Circumstances,
    status: u16,
    body: &str,
) -> Proof {
    let answered = Answered { status, body: body.as_bytes(), retry_after: None };
    judge(profile, kind, &values(), &subject(), &circumstances, (&[answered], true))
}

fn with_key(body: &str) -> String {
    format!("{{\"key\": \"{}\", {body}}}", KEY.to_uppercase())
}

#[test]
fn a_task_whose_id_holds_the_code_or_a_credential_is_not_kept() {
    let profile = profile("none", "", false);
    for (task, kept) in [("t-1", true), ("SECRET-1234/1", false), ("user:hunter2", false)] {
        let body = format!(r#"{{"state": "working", "task": "{task}"}}"#);
        let told = proof(&profile, OpKind::Send, circumstances(Doubt::FirstSend), 200, &body);
        let Proof::Processing { task: found, answer, .. } = told else { panic!("{told:?}") };
        assert_eq!(found.as_deref(), kept.then_some(task));
        assert_eq!(answer.contains("not kept"), !kept, "{answer}");
    }
}

#[test]
fn a_refused_send_that_is_not_the_first_proves_something_only_where_keys_are_replayed() {
    let ours = with_key(r#""state": "no""#);
    for (dedup, in_window, body, word) in [
        ("replay", true, ours.as_str(), "failed"),
        ("replay", false, &ours, "in_doubt"),
        ("replay", true, r#"{"state": "no"}"#, "in_doubt"),
        ("reject", true, &ours, "in_doubt"),
        ("none", true, &ours, "in_doubt"),
    ] {
        let profile = profile(dedup, r#"key = "/key""#, false);
        let circumstances = Circumstances { in_window, ..circumstances(Doubt::InDoubt) };
        let proof = proof(&profile, OpKind::Send, circumstances, 402, body);
        assert_eq!(proof.word(), word, "{dedup} {in_window} {body}");
    }
    let first = proof(
        &profile("none", "", false),
        OpKind::Send,
        circumstances(Doubt::FirstSend),
        402,
        r#"{"state": "no"}"#,
    );
    assert_eq!(first.word(), "failed");
}

#[test]
fn without_our_key_an_answer_is_definite_only_alone() {
    let profile = profile("replay", "", false);
    for (state, kind, word) in [
        ("ok", OpKind::Send, "succeeded"),
        ("no", OpKind::Send, "failed"),
        ("busy", OpKind::Send, "not_executed"),
        ("ok", OpKind::LookUp, "succeeded"),
        ("no", OpKind::LookUp, "failed"),
    ] {
        let body = format!("{{\"state\": \"{state}\", \"amount\": 5}}");
        let alone = circumstances(Doubt::FirstSend);
        assert_eq!(proof(&profile, kind, alone, 200, &body).word(), word);
        let shared = Circumstances { is_alone: false, ..alone };
        let shared = proof(&profile, kind, shared, 200, &body);
        assert!(
            !shared.is_definite() && !matches!(shared, Proof::NotExecuted { .. }),
            "{state}: {shared:?}"
        );
    }
    // Nor is the task that it tells.
    let shared = Circumstances { is_alone: false, ..circumstances(Doubt::FirstSend) };
    let working =
        proof(&profile, OpKind::Send, shared, 200, r#"{"state": "working", "task": "t"}"#);
    assert_eq!(working.word(), "in_doubt");
    for kind in [OpKind::Send, OpKind::LookUp, OpKind::Find] {
        assert!(profile.asks_alone(kind), "{kind:?}");
    }
}

#[test]
fn what_may_be_definite_although_it_tells_no_key_is_asked_on_a_connection_of_its_own() {
    let takes_key = |ends_doubt| profile("replay", r#"key = "/key""#, ends_doubt);
    // A refusal of the first send counts without the key.
    assert!(takes_key(false).asks_alone(OpKind::Send));
    // A success and a refusal that a question is answered by do not, and what is not there has none.
    assert!(!takes_key(false).asks_alone(OpKind::LookUp));
    assert!(takes_key(true).asks_alone(OpKind::LookUp));
    // By the built-in contract a look-up knows refusals too, and so it does by a copy of it.
    let copy = BUILT_IN.replacen("id = \"holdfast\"", "id = \"copy\"", 1);
    let copy = Profile::parse(&copy).unwrap();
    for profile in [Profile::built_in(), &copy] {
        for kind in [OpKind::Send, OpKind::LookUp, OpKind::Cancel] {
            assert!(!profile.asks_alone(kind), "{kind:?}");
        }
    }
    // Where it does not say so, or keys are not replayed, sends have connections of their own.
    let without = BUILT_IN.replacen("tells_refusals = true", "", 1);
    assert!(Profile::parse(&without).unwrap().asks_alone(OpKind::Send));
    let rejects = BUILT_IN.replacen("dedup = \"replay\"", "dedup = \"reject\"", 1);
    assert!(Profile::parse(&rejects).unwrap().asks_alone(OpKind::Send));
    let on_a_send = BUILT_IN.replacen("[op.send]\n", "[op.send]\ntells_refusals = true\n", 1);
    let faults = Profile::parse(&on_a_send).unwrap_err();
    assert!(faults[0].to_string().contains("tells_refusals is for look_up and find"), "{faults:?}");
}

#[test]
fn what_the_code_alone_found_needs_our_account_and_a_time_since_it_was_recorded() {
    let profile = profile("replay", r#"key = "/key""#, true);
    let find = |body: &str| proof(&profile, OpKind::Find, circumstances(Doubt::InDoubt), 200, body);
    let used = |account: &str, at: i64| {
        find(&format!(r#"{{"state": "used", "amount": 5, "user": "{account}", "at": {at}}}"#))
    };
    assert_eq!(used("acc-1", NOW - 59).word(), "succeeded");
    assert_eq!(used("acc-1", NOW - 61).word(), "review");
    assert_eq!(used("acc-2", NOW).word(), "review");
    assert_eq!(find(r#"{"state": "used", "amount": 5, "at": 1800000000}"#).word(), "in_doubt");
    assert_eq!(find(r#"{"state": "used", "amount": 5, "user": "acc-1"}"#).word(), "in_doubt");
    let task = |account: &str| {
        find(&format!(r#"{{"state": "working", "task": "t", "user": "{account}", "at": {NOW}}}"#))
    };
    assert!(matches!(task("acc-1"), Proof::Processing { task: Some(_), .. }));
    assert!(matches!(task("acc-2"), Proof::Processing { task: None, .. }));
    assert_eq!(find(r#"{"state": "by_another"}"#).word(), "failed");
    assert_eq!(find(r#"{"state": "unknown"}"#).word(), "not_found");
}

#[test]
fn a_status_that_no_rule_names_proves_only_what_it_is_for() {
    let profile = profile("replay", r#"key = "/key""#, true);
    let send = |status, state: &str| {
        let body = with_key(&format!(r#""state": "{state}", "amount": 5"#));
        proof(&profile, OpKind::Send, circumstances(Doubt::FirstSend), status, &body)
    };
    for status in [200, 201, 299] {
        assert_eq!(send(status, "ok").word(), "succeeded", "{status}");
        assert_eq!(send(status, "no").word(), "failed", "{status}");
    }
    for status in [400, 422, 599] {
        assert_eq!(send(status, "ok").word(), "in_doubt", "{status}");
        assert_eq!(send(status, "no").word(), "failed", "{status}");
        assert_eq!(send(status, "busy").word(), "not_executed", "{status}");
    }
    for status in [100, 199, 205, 206, 300, 302, 304, 399, 600, 999] {
        for state in ["ok", "no", "busy"] {
            assert_eq!(send(status, state).word(), "in_doubt", "{status} {state}");
        }
    }
    let Proof::InDoubt { answer } = send(206, "ok") else { panic!() };
    assert!(answer.contains("HTTP 206, but no rule names this status"), "{answer}");
}

#[test]
fn a_rule_may_name_an_unusual_status_and_a_class_names_no_partial_answer() {
    let named = |status: &str| {
        let text = format!(
            r#"id = "p"
version = 1
[http]
base = "https://provider.test"
[identity]
key = "uuid"
dedup = "none"
[times]
max_processing = "2m"
[op.send]
path = "/r/{{{{ key }}}}"
take = {{ amount = {{ at = "/amount", unit = "minor" }} }}
[[op.send.rule]]
when = {{ status = [{status}], eq = {{ "/state" = "ok" }} }}
then = "succeeded"
"#
        );
        Profile::parse(&text).unwrap()
    };
    let body = r#"{"state": "ok", "amount": 5}"#;
    for (rule, status, word) in [
        ("206", 206, "succeeded"),
        ("302", 302, "succeeded"),
        ("\"4xx\"", 409, "succeeded"),
        ("\"2xx\"", 202, "succeeded"),
        ("\"2xx\"", 206, "in_doubt"),
        ("\"2xx\", 206", 206, "succeeded"),
        ("\"2xx\"", 205, "in_doubt"),
    ] {
        let profile = named(rule);
        let circumstances = circumstances(Doubt::FirstSend);
        let proof = proof(&profile, OpKind::Send, circumstances, status, body);
        assert_eq!(proof.word(), word, "{rule} {status}");
    }
}

#[test]
fn that_it_is_not_found_proves_nothing_unless_the_profile_says_so() {
    let late = Circumstances {
        since_last_send: Some(Duration::from_secs(126)),
        ..circumstances(Doubt::InDoubt)
    };
    let profile = profile("replay", "", false);
    assert_eq!(proof(&profile, OpKind::LookUp, late, 404, "{}").word(), "not_found");
}

#[test]
fn that_it_is_not_found_proves_something_only_when_it_can_no_longer_come() {
    let profile = profile("replay", "", true);
    let at = |since_last_send, since_recorded, body: &str| {
        let circumstances = Circumstances {
            since_last_send: Some(since_last_send)
                .filter(|since| *since > 0)
                .map(Duration::from_secs),
            since_recorded: Duration::from_secs(since_recorded),
            ..circumstances(Doubt::InDoubt)
        };
        proof(&profile, OpKind::LookUp, circumstances, 404, body)
    };
    match at(126, 200, "{}") {
        Proof::Failed { failure, .. } => {
            assert_eq!((&*failure.reason, failure.code_spent), (reason::NOT_EXECUTED, false));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(at(125, 200, "{}").word(), "not_found", "the last of its time");
    assert_eq!(at(0, 156, "{}").word(), "failed", "counted from the end of the send window");
    assert_eq!(at(0, 155, "{}").word(), "not_found");
    assert_eq!(at(500, 500, "<html>").word(), "not_found", "only JSON proves it");
}

#[test]
fn another_key_or_task_settles_nothing() {
    let profile = profile("replay", r#"key = "/key""#, false);
    for state in ["ok", "no", "busy"] {
        let body = format!(
            r#"{{"key": "0190163d-8694-739b-aea5-966c26f8ad91", "state": "{state}", "amount": 5}}"#
        );
        for kind in [OpKind::Send, OpKind::LookUp] {
            let proof = proof(&profile, kind, circumstances(Doubt::FirstSend), 200, &body);
            assert_eq!(proof.word(), "in_doubt", "{state}");
        }
    }
    let mut known = subject();
    known.task = Some("t-1".to_owned());
    for (task, word) in [("t-1", "succeeded"), ("t-2", "in_doubt")] {
        let body = with_key(&format!(r#""state": "ok", "amount": 5, "task": "{task}""#));
        let answered = Answered { status: 200, body: body.as_bytes(), retry_after: None };
        let circumstances = circumstances(Doubt::InDoubt);
        let proof =
            judge(&profile, OpKind::LookUp, &values(), &known, &circumstances, (&[answered], true));
        assert_eq!(proof.word(), word, "{task}");
    }
}

#[test]
fn a_success_names_what_it_lacks() {
    let profile = profile("replay", r#"key = "/key", account = "/user", currency = "/cur""#, false);
    let send = |body: &str| {
        proof(&profile, OpKind::Send, circumstances(Doubt::FirstSend), 200, &with_key(body))
    };
    for (body, wanted) in [
        (r#""state": "ok", "user": "acc-1", "cur": "USD""#, "amount is missing"),
        (r#""state": "ok", "user": "acc-1", "cur": "USD", "amount": 1e400"#, "amount is no amount"),
        (r#""state": "ok", "amount": 5, "cur": "USD""#, "account is missing"),
        (
            r#""state": "ok", "amount": 5, "user": "acc-1", "cur": "$""#,
            "currency is not a currency's three letters",
        ),
        (
            r#""state": "ok", "amount": 5, "amount": 6, "user": "acc-1", "cur": "USD""#,
            "given twice",
        ),
        (
            r#""state": "ok", "state": "no", "amount": 5, "user": "acc-1", "cur": "USD""#,
            "given twice",
        ),
    ] {
        match send(body) {
            Proof::InDoubt { answer } => assert!(answer.contains(wanted), "{answer}"),
            other => panic!("{body}: {other:?}"),
        }
    }
    assert_eq!(
        send(r#""state": "ok", "amount": 5, "user": "acc-1", "cur": "usd""#).word(),
        "succeeded"
    );
    assert_eq!(
        send(r#""state": "ok", "amount": 5, "user": "acc-2", "cur": "USD""#).word(),
        "review"
    );
    assert_eq!(
        send(r#""state": "ok", "amount": 5, "user": "acc-1", "cur": "EUR""#).word(),
        "review"
    );
}

#[test]
fn codes_and_credentials_are_in_no_text() {
    let profile = profile("replay", r#"message = "/m", ref = "/ref""#, false);
    for state in ["ok", "no", "busy", "working", "odd"] {
        let body = format!(
            r#"{{"state": "{state}", "amount": 5, "m": "secret 1234 hunter2", "ref": "hunter2"}}"#
        );
        let proof = proof(&profile, OpKind::Send, circumstances(Doubt::FirstSend), 200, &body);
        let text = format!("{proof:?} {:?}", subject()).to_lowercase();
        assert!(!text.contains("1234") && !text.contains("hunter2"), "{text}");
    }
}

/// Where the profile takes a key that a failure lacks, it counts to nothing but the first send.
#[test]
fn a_failure_that_lacks_the_key_is_no_answer_to_a_question() {
    let profile = profile("replay", r#"key = "/key""#, false);
    for (kind, doubt, word) in [
        (OpKind::Send, Doubt::FirstSend, "failed"),
        (OpKind::Send, Doubt::InDoubt, "in_doubt"),
        (OpKind::LookUp, Doubt::InDoubt, "in_doubt"),
    ] {
        let proof = proof(&profile, kind, circumstances(doubt), 402, r#"{"state": "no"}"#);
        assert_eq!(proof.word(), word, "{kind:?} {doubt:?}");
    }
}

/// Each part of the rule about refusals in doubt by itself: the other parts hold.
#[test]
fn a_refusal_in_doubt_proves_nothing_where_keys_are_rejected() {
    refused_in_doubt("reject", true, &with_key(r#""state": "no""#));
}

#[test]
fn a_refusal_in_doubt_proves_nothing_where_nothing_is_deduplicated() {
    refused_in_doubt("none", true, &with_key(r#""state": "no""#));
}

#[test]
fn a_refusal_in_doubt_proves_nothing_after_the_window() {
    refused_in_doubt("replay", false, &with_key(r#""state": "no""#));
}

#[test]
fn a_refusal_in_doubt_proves_nothing_without_our_key() {
    refused_in_doubt("replay", true, r#"{"state": "no"}"#);
}

fn refused_in_doubt(dedup: &str, in_window: bool, body: &str) {
    let profile = profile(dedup, r#"key = "/key""#, false);
    let circumstances = Circumstances { in_window, ..circumstances(Doubt::InDoubt) };
    let proof = proof(&profile, OpKind::Send, circumstances, 402, body);
    assert_eq!(proof.word(), "in_doubt");
}

/// What the code alone found, with one thing missing.
fn found_by_the_code(what: &str) -> Proof {
    let profile = profile("replay", r#"key = "/key""#, true);
    let body = format!(r#"{{"state": "used", "amount": 5, {what}}}"#);
    proof(&profile, OpKind::Find, circumstances(Doubt::InDoubt), 200, &body)
}

#[test]
fn what_the_code_found_before_the_redemption_was_recorded_is_no_success() {
    let before = NOW - 61;
    assert_eq!(found_by_the_code(&format!(r#""user": "acc-1", "at": {before}"#)).word(), "review");
}

#[test]
fn what_the_code_found_without_a_time_is_no_success() {
    assert_eq!(found_by_the_code(r#""user": "acc-1""#).word(), "in_doubt");
}

#[test]
fn a_code_that_is_unknown_is_only_not_found() {
    let profile = profile("replay", "", false);
    let body = r#"{"state": "unknown"}"#;
    let proof = proof(&profile, OpKind::Find, circumstances(Doubt::InDoubt), 200, body);
    assert_eq!(proof.word(), "not_found");
}

/// Whether a test of this folder succeeds in a process of its own, with these guards off.
fn succeeds(test: &str, guards_off: &str) -> bool {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("provider::classify::proof::{test}")])
        .env("HOLDFAST_GUARDS_OFF", guards_off)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("running 1 test"), "{said}");
    output.status.success()
}

/// The rules without which cards were lost or doubled: each by its guard, and by the tests that must fail without it.
#[test]
fn each_rule_is_missed_when_it_is_left_out() {
    let rules: [(&str, &[&str]); 6] = [
        (
            "refused_again_is_no_proof",
            &[
                "tests::a_refused_send_that_is_not_the_first_proves_something_only_where_keys_are_replayed",
                "tests::a_refusal_in_doubt_proves_nothing_where_keys_are_rejected",
                "tests::a_refusal_in_doubt_proves_nothing_where_nothing_is_deduplicated",
                "tests::a_refusal_in_doubt_proves_nothing_after_the_window",
                "tests::a_refusal_in_doubt_proves_nothing_without_our_key",
            ],
        ),
        (
            "failure_by_key",
            &[
                "tests::a_failure_that_lacks_the_key_is_no_answer_to_a_question",
                "tests::a_refusal_in_doubt_proves_nothing_without_our_key",
            ],
        ),
        ("reused_is_no_proof", &["tests::without_our_key_an_answer_is_definite_only_alone"]),
        (
            "codes_find_others",
            &[
                "tests::what_the_code_alone_found_needs_our_account_and_a_time_since_it_was_recorded",
                "tests::what_the_code_found_before_the_redemption_was_recorded_is_no_success",
                "tests::what_the_code_found_without_a_time_is_no_success",
                "tests::a_code_that_is_unknown_is_only_not_found",
            ],
        ),
        (
            "not_found_is_no_proof",
            &["tests::that_it_is_not_found_proves_nothing_unless_the_profile_says_so"],
        ),
        (
            "not_found_is_late",
            &["tests::that_it_is_not_found_proves_something_only_when_it_can_no_longer_come"],
        ),
    ];
    let damage = "sequences::these_sequences_end_in_no_wrong_outcome";
    let all: BTreeSet<_> = rules.iter().flat_map(|(_, tests)| *tests).chain([&damage]).collect();
    for test in all {
        assert!(succeeds(test, ""), "{test} fails by itself");
    }
    for (guard, tests) in rules {
        for test in tests.iter().chain([&damage]) {
            assert!(!succeeds(test, guard), "{test} does not notice that {guard} is off");
        }
    }
}
