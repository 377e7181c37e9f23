//! Profiles and answers that nobody would think of: whatever loads, no wrong outcome is definite.
//!
//! The profiles are text, put together at random; those that load are asked. What an outcome needs is computed here from
//! the answer and the choices that made the profile, by other means than the program's.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{
    tests::{KEY, NOW, circumstances, subject},
    *,
};
use crate::provider::profile::{Answered, Profile, Values};

/// The choices that make a profile.
#[derive(Clone, Debug)]
struct Made {
    dedup: &'static str,
    key: &'static str,
    /// The look-up is by the task.
    by_task: bool,
    takes: Vec<&'static str>,
    amount: &'static str,
    ends_doubt: bool,
    by: &'static str,
    with_items: bool,
    rules: Vec<(Vec<&'static str>, When, &'static str)>,
}

/// What a rule asks for beside the status.
#[derive(Clone, Copy, Debug)]
enum When {
    Nothing,
    Eq(&'static str),
    In(&'static str),
    /// A state is there.
    Has,
    /// No state is there.
    Absent,
    /// Exactly one element fits, or none does.
    Found(bool),
}

impl When {
    fn text(self, at: &str) -> String {
        match self {
            Self::Nothing => String::new(),
            Self::Eq(state) => format!(", eq = {{ \"{at}/state\" = \"{state}\" }}"),
            Self::In(state) => format!(", in = {{ \"{at}/state\" = [\"x\", \"{state}\"] }}"),
            Self::Has => format!(", has = [\"{at}/state\"]"),
            Self::Absent => format!(", absent = [\"{at}/state\"]"),
            Self::Found(found) => format!(", found = {found}"),
        }
    }

    /// Whether it may fit an answer with this element.
    fn fits(self, element: Option<&Value>) -> bool {
        let state = element.and_then(|one| one["state"].as_str());
        match self {
            Self::Nothing => true,
            Self::Eq(wanted) | Self::In(wanted) => state == Some(wanted),
            Self::Has => state.is_some(),
            Self::Absent => state.is_none(),
            Self::Found(found) => !found || element.is_some(),
        }
    }
}

const STATES: [&str; 2] = ["a", "b"];
const THENS: [&str; 11] = [
    r#""succeeded""#,
    "{ failed = { spent = false, reason = \"NO\" } }",
    "{ failed = { spent = true, reason = \"SPENT\" } }",
    "{ failed = { spent = false } }",
    r#""processing""#,
    r#""not_executed""#,
    r#""unauthorized""#,
    r#""duplicate""#,
    r#""not_found""#,
    r#""review""#,
    r#""in_doubt""#,
];

impl Made {
    /// The op that is asked, and the whole file. Every op reads the same fields.
    fn text(&self) -> String {
        let at = if self.with_items { "@" } else { "" };
        let takes: String = self
            .takes
            .iter()
            .map(|take| match *take {
                "time" => format!("time = {{ at = \"{at}/time\", unit = \"epoch\" }}, "),
                take => format!("{take} = \"{at}/{take}\", "),
            })
            .collect();
        let amount = match self.amount {
            "expected" => "amount = \"expected\"".to_owned(),
            unit => format!("amount = {{ at = \"{at}/amount\", unit = \"{unit}\" }}"),
        };
        let rules = |kind: &str| -> String {
            let rules = self.rules.iter().map(|(statuses, when, then)| {
                let statuses: Vec<_> =
                    statuses.iter().map(|status| format!("\"{status}\"")).collect();
                let eq = when.text(at);
                format!(
                    "[[op.{kind}.rule]]\nwhen = {{ status = [{}]{eq} }}\nthen = {then}\n",
                    statuses.join(", ")
                )
            });
            rules.collect()
        };
        let items =
            if self.with_items { "items = \"/items\"\nmatch = { \"/ours\" = true }\n" } else { "" };
        let op = |kind: &str, path: &str| {
            let ends = if matches!(kind, "look_up" | "find") { self.ends_doubt } else { false };
            format!(
                "[op.{kind}]\npath = \"{path}\"\n{items}take = {{ {takes}{amount} }}\nends_doubt = {ends}\n{}",
                rules(kind)
            )
        };
        format!(
            "id = \"p\"\nversion = 1\n[http]\nbase = \"https://p.test\"\n[identity]\n{}\ndedup = \"{}\"\nwindow = \"1h\"\n[times]\nvisibility = \"5s\"\nmax_processing = \"2m\"\n{}{}{}{}",
            self.key,
            self.dedup,
            op("send", "/s/{{ key }}/{{ code }}"),
            op("look_up", if self.by_task { "/l/{{ task }}" } else { "/l/{{ key }}" }),
            op("cancel", "/c/{{ key }}"),
            op("find", &format!("/f/{{{{ {} }}}}", self.by)),
        )
    }
}

/// The kinds of keys, and what the redemption is called by each.
const KEYS: [(&str, &str); 3] = [
    ("key = \"uuid\"", KEY),
    ("key = \"hex\"\nlength = 16", "aea5966c26f8ad90"),
    ("key = \"digits\"\nlength = 20", "00012345678901234567"),
];

impl Made {
    fn our_key(&self) -> &'static str {
        KEYS.iter().find(|(text, _)| *text == self.key).unwrap().1
    }
}

fn when() -> impl Strategy<Value = When> {
    let states = || proptest::sample::select(STATES.to_vec());
    prop_oneof![
        2 => Just(When::Nothing),
        6 => states().prop_map(When::Eq),
        3 => states().prop_map(When::In),
        1 => Just(When::Has),
        1 => Just(When::Absent),
        2 => any::<bool>().prop_map(When::Found),
    ]
}

fn made() -> impl Strategy<Value = Made> {
    let takes = proptest::sample::subsequence(
        vec!["key", "account", "currency", "failure", "task", "ref", "message", "time"],
        0..=4,
    );
    let statuses = proptest::sample::subsequence(vec!["2xx", "4xx", "5xx"], 1..=3);
    let rule = (statuses, when(), proptest::sample::select(THENS.to_vec()));
    let keys = KEYS.map(|(text, _)| text).to_vec();
    (
        (
            proptest::sample::select(vec!["replay", "reject", "none"]),
            proptest::sample::select(keys),
            any::<bool>(),
        ),
        takes,
        proptest::sample::select(vec!["minor", "major", "symbol", "expected"]),
        any::<bool>(),
        proptest::sample::select(vec!["key", "code"]),
        any::<bool>(),
        proptest::collection::vec(rule, 1..6),
    )
        .prop_map(
            |((dedup, key, by_task), takes, amount, ends_doubt, by, with_items, rules)| Made {
                dedup,
                key,
                by_task,
                takes,
                amount,
                ends_doubt,
                by,
                with_items,
                rules,
            },
        )
}

/// A field, often as it should be.
fn field(good: Value, odd: Vec<Value>) -> impl Strategy<Value = Value> {
    prop_oneof![20 => Just(good), 1 => Just(Value::Null), 2 => proptest::sample::select(odd)]
}

fn element(key: &'static str) -> impl Strategy<Value = Value> {
    let another = format!("{}1", &key[..key.len() - 1]);
    (
        field(json!(key), vec![json!(another), json!(7), json!("")]),
        prop_oneof![
            20 => proptest::sample::select(STATES.to_vec()).prop_map(Value::from),
            1 => Just(Value::Null),
        ],
        field(json!(1000), vec![json!("1000"), json!(10.5), json!("$1,500.00"), json!(-5), json!("x")]),
        field(json!("acc-1"), vec![json!("acc-2"), json!([])]),
        field(json!("USD"), vec![json!("EUR"), json!("usd"), json!("$")]),
        field(json!("t-1"), vec![json!("t-2"), json!({})]),
        field(json!(NOW), vec![json!(NOW - 3600), json!("soon")]),
        field(json!(true), vec![json!(false), json!("true")]),
    )
        .prop_map(|(key, state, amount, account, currency, task, time, ours)| {
            json!({
                "key": key, "state": state, "amount": amount, "account": account, "currency": currency,
                "task": task, "time": time, "ours": ours, "failure": "WHY", "ref": "R-1", "message": "text",
            })
        })
}

/// An answer's body, and the element that a reader by hand would choose.
fn body(key: &'static str, with_items: bool) -> impl Strategy<Value = (String, Option<Value>)> {
    let odd = proptest::sample::select(vec!["", "<html>", "[]", "{\"state\"", "7", "{}"]);
    let whole = proptest::collection::vec(element(key), 0..3).prop_map(move |elements| {
        if !with_items {
            let one = elements.first().cloned().unwrap_or(json!({}));
            return (one.to_string(), Some(one));
        }
        let mut ours: Vec<_> = elements.iter().filter(|one| one["ours"] == true).collect();
        ours.dedup();
        let chosen = (ours.len() == 1).then(|| ours[0].clone());
        (json!({"items": elements}).to_string(), chosen)
    });
    prop_oneof![9 => whole, 1 => odd.prop_map(|text| (text.to_owned(), None))]
}

fn subject_of(key: &str, task: Option<&str>) -> Subject {
    Subject { key: key.to_owned(), task: task.map(str::to_owned), ..subject() }
}

fn values(known: Subject) -> Values {
    let mut values = Values::at(OffsetDateTime::from_unix_timestamp(NOW).unwrap());
    values.key = Some(known.key);
    values.task = known.task;
    values.code = Some("SECRET-1234".to_owned());
    values.account.id = Some(known.account);
    values.expected = Some(Money { amount_minor: 1000, currency: known.currency });
    values
}

/// The amount by other means: floats are exact for these.
fn amount_of(unit: &str, value: &Value) -> Option<i64> {
    match (unit, value) {
        ("expected", _) => Some(1000),
        ("minor", Value::Number(number)) => number.as_i64().filter(|minor| *minor >= 0),
        ("minor", Value::String(text)) => text.parse().ok(),
        ("major" | "symbol", Value::Number(number)) => {
            number.as_f64().filter(|major| *major >= 0.0).map(|major| (major * 100.0) as i64)
        }
        ("major", Value::String(text)) => text.parse::<i64>().ok().map(|major| major * 100),
        ("symbol", Value::String(text)) => {
            text.replace(['$', ','], "").parse::<f64>().ok().map(|major| (major * 100.0) as i64)
        }
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn no_profile_that_loads_makes_a_wrong_outcome_definite(
        (made, (body, element)) in made().prop_flat_map(|made| {
            let body = body(made.our_key(), made.with_items);
            (Just(made), body)
        }),
        status in proptest::sample::select(vec![200_u16, 201, 302, 400, 404, 409, 429, 500, 503]),
        kind in proptest::sample::select(vec![OpKind::Send, OpKind::LookUp, OpKind::Cancel, OpKind::Find]),
        (first, in_window, is_alone) in any::<(bool, bool, bool)>(),
        since in proptest::option::of(0_u64..400),
        task in proptest::option::of(Just("t-1")),
    ) {
        let subject = subject_of(made.our_key(), task);
        let Ok(profile) = Profile::parse(&made.text()) else { return Ok(()) };
        let doubt = if first && kind == OpKind::Send { Doubt::FirstSend } else { Doubt::InDoubt };
        let circumstances = Circumstances {
            in_window, is_alone,
            since_recorded: Duration::from_secs(since.unwrap_or(0)),
            since_last_send: since.map(Duration::from_secs),
            ..circumstances(doubt)
        };
        let answered = Answered { status, body: body.as_bytes(), retry_after: None };
        let proof = judge(
            &profile, kind, &values(subject.clone()), &subject, &circumstances, (&[answered], true),
        );

        let takes = |what: &str| made.takes.contains(&what);
        let told = |what: &str| element.as_ref().map_or(Value::Null, |one| one[what].clone());
        let by_our_key = takes("key") && told("key") == made.our_key();
        // The answer to a send tells a new task.
        let by_our_task = takes("task") && task.is_some() && kind != OpKind::Send && told("task") == "t-1";
        let anothers_task =
            takes("task") && task.is_some() && kind != OpKind::Send && !told("task").is_null() && !by_our_task;
        let anothers_key = takes("key") && !told("key").is_null() && !by_our_key;
        let is_anothers = anothers_key || anothers_task;
        let is_ours = (by_our_key || by_our_task) && !is_anothers;
        let by_code = kind == OpKind::Find && made.by == "code" && !is_ours;
        let is_late = since.is_some_and(|since| since > 125);
        let says = |what: &str| {
            made.rules.iter().any(|(_, when, then)| then.contains(what) && when.fits(element.as_ref()))
        };
        let acts = matches!(
            proof,
            Proof::Succeeded { .. } | Proof::Failed { .. } | Proof::Review { .. } | Proof::NotExecuted { .. }
        );
        prop_assert!(!(acts && is_anothers), "another's: {proof:?}");
        prop_assert!(!(acts && !is_alone && !is_ours), "anybody's: {proof:?}");
        match &proof {
            Proof::Succeeded { amount, .. } => {
                prop_assert!(says("succeeded"));
                prop_assert!(element.is_some(), "no JSON, or not exactly one");
                prop_assert!(!takes("key") || is_ours);
                prop_assert!(!takes("account") || told("account") == "acc-1");
                prop_assert!(!takes("currency") || told("currency").as_str().is_some_and(|c| c.eq_ignore_ascii_case("usd")));
                prop_assert_eq!(Some(amount.amount_minor), amount_of(made.amount, &told("amount")));
                if by_code {
                    prop_assert!(told("account") == "acc-1" && told("time") == NOW);
                }
            }
            Proof::Failed { failure, .. } if failure.reason == reason::NOT_EXECUTED => {
                prop_assert!(made.ends_doubt && is_late && matches!(kind, OpKind::LookUp | OpKind::Find));
                prop_assert!(serde_json::from_str::<Value>(&body).is_ok());
                prop_assert!(!failure.code_spent);
            }
            Proof::Failed { failure, .. } => {
                prop_assert!(says("failed"));
                prop_assert!(serde_json::from_str::<Value>(&body).is_ok());
                prop_assert!(!takes("key") || is_ours || doubt == Doubt::FirstSend);
                if kind == OpKind::Send && doubt == Doubt::InDoubt {
                    prop_assert!(made.dedup == "replay" && in_window && is_ours);
                }
                prop_assert!(!by_code || failure.code_spent);
            }
            Proof::Undone(_) => prop_assert!(false, "no rule says so"),
            Proof::NotExecuted { .. } => prop_assert_eq!(doubt, Doubt::FirstSend),
            Proof::Processing { task: Some(_), .. } => {
                prop_assert!(is_ours || is_alone);
                prop_assert!(!by_code || told("account") == "acc-1" && told("time") == NOW);
            }
            _ => {}
        }
    }

    /// No text is more than a text.
    #[test]
    fn no_bytes_break_it(bytes in proptest::collection::vec(any::<u8>(), 0..200), status in 0_u16..1000) {
        let profile = super::tests::profile("replay", "", true);
        let answered = Answered { status, body: &bytes, retry_after: None };
        let proof = judge(
            &profile, OpKind::LookUp, &values(subject()), &subject(), &circumstances(Doubt::InDoubt), (&[answered], true),
        );
        prop_assert!(!proof.is_definite());
    }
}

#[test]
fn enough_of_the_profiles_load_and_enough_of_the_outcomes_are_definite() {
    use proptest::{strategy::ValueTree as _, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let (mut loaded, mut definite) = (0, 0);
    for _ in 0..1000 {
        let made = made().new_tree(&mut runner).unwrap().current();
        let body = body(made.our_key(), made.with_items);
        let (body, _) = body.new_tree(&mut runner).unwrap().current();
        let Ok(profile) = Profile::parse(&made.text()) else { continue };
        loaded += 1;
        let answered = Answered { status: 200, body: body.as_bytes(), retry_after: None };
        let proof = judge(
            &profile,
            OpKind::Send,
            &values(subject_of(made.our_key(), None)),
            &subject_of(made.our_key(), None),
            &circumstances(Doubt::FirstSend),
            (&[answered], true),
        );
        definite += usize::from(proof.is_definite());
    }
    assert!(loaded > 100 && definite > 25, "{loaded} loaded, {definite} definite");
}
