//! The format: what loads, and what is refused and where.

mod requests;

use std::collections::BTreeMap;

use proptest::prelude::*;
use time::OffsetDateTime;

use super::*;

/// A profile that loads, with more of what a test wants.
pub(in crate::provider) fn minimal(more: &str) -> String {
    format!(
        r#"id = "p"
version = 1
[http]
base = "https://provider.test/api/"
headers = {{ accept = "application/json", x-account = "{{{{ account.id? }}}}" }}
[identity]
key = "uuid"
dedup = "replay"
window = "24h"
[times]
max_processing = "2m"
[op.send]
path = "/r/{{{{ key }}}}"
body = {{ code = "{{{{ code }}}}", amount = "{{{{ expected.minor }}}}" }}
take = {{ key = "/key", amount = {{ at = "/amount", unit = "minor" }}, failure = "/code" }}
[[op.send.rule]]
when = {{ status = [200], eq = {{ "/state" = "ok" }} }}
then = "succeeded"
[[op.send.rule]]
when = {{ status = ["4xx"], has = ["/code"] }}
then = {{ failed = {{ spent = false }} }}
{more}"#
    )
}

fn faults(text: &str) -> Vec<String> {
    match Profile::parse(text) {
        Ok(_) => Vec::new(),
        Err(faults) => faults.iter().map(ToString::to_string).collect(),
    }
}

pub(super) fn loads(text: &str) -> Profile {
    Profile::parse(text).unwrap_or_else(|faults| panic!("{faults:#?}"))
}

#[test]
fn the_profiles_of_the_tree_mean_what_their_cases_say() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/profiles");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        match crate::provider::check::check(&text) {
            Ok(profile) => {
                assert!(profile.case_count() >= 10, "{name} has {} cases", profile.case_count());
                assert_eq!(profile.id.as_str(), name);
                assert!(
                    name == "holdfast" || text.contains("untried against the live service"),
                    "{name}"
                );
            }
            Err(faults) => {
                panic!("{name}: {}", faults.iter().map(|f| format!("\n{f}")).collect::<String>())
            }
        }
        names.push(name);
    }
    names.sort();
    let wanted = [
        "adyen-stored-value",
        "dt-one",
        "fiserv",
        "holdfast",
        "reloadly",
        "square",
        "task-api",
        "voucherify",
    ];
    assert_eq!(names, wanted);
}

#[test]
fn every_fault_is_named_with_its_line() {
    let text = r#"id = "Not An Id"
version = 0
colour = "red"
[http]
base = "http://user:pw@far.test/?q"
timeout = "soon"
[identity]
key = "digits"
dedup = "sometimes"
[times]
max_processing = "2m"
[op.send]
path = "no slash"
body = { a = "{{ nobody }}", b = "{{ key", c = "{{ token }}" }
take = { key = "key" }
[[op.send.rule]]
when = { status = [200, 700] }
then = "succeeded"
[[op.send.rule]]
when = { status = [402], eq = { "x" = 1 } }
then = { failed = { } }
"#;
    let faults = faults(text);
    for wanted in [
        "line 1: id must be 1 to 64",
        "line 2: version must be a whole number",
        "line 3: unknown key colour",
        "line 5: http.base must not hold a user or password",
        "line 6: http.timeout must be a duration",
        "line 7: identity.length is missing",
        "line 9: identity.dedup must be one of",
        "line 13: op.send.path must begin with '/'",
        "line 14: op.send.body.a names 'nobody'",
        "line 14: op.send.body.b has a '{{'",
        "line 14: op.send.body.c names token",
        "line 15: op.send.take.key must be a pointer",
        "line 17: op.send.rule.when.status must be a whole number",
        "line 20: op.send.rule.when.eq.x must be a pointer",
        "line 21: op.send.rule.then.failed: spent is missing",
    ] {
        assert!(faults.iter().any(|fault| fault.starts_with(wanted)), "{wanted}: {faults:#?}");
    }
}

/// What is wrong with one part keeps nothing that is wrong with another one from being named.
#[test]
fn faults_of_the_whole_are_named_beside_those_of_parts() {
    let text = r#"id = "p"
version = 0
[http]
base = "https://provider.test"
[identity]
key = "uuid"
dedup = "none"
[times]
max_processing = "2m"
[op.send]
path = "/r"
body = { a = "{{ nobody }}" }
colour = "red"
[[op.send.rule]]
when = { status = [200], eq = { "/state" = "ok" } }
then = "processing"
[[op.send.rule]]
when = { status = [200], eq = { "/state" = "ok" }, has = ["/b"] }
then = "review"
[op.find]
path = "/f"
[[op.find.rule]]
when = { status = [200], eq = { "/state" = "ok" } }
then = "succeeded"
[[op.find.rule]]
when = { status = [200], eq = { x = 1 } }
then = { failed = { spent = true } }
[[case]]
op = "list"
status = 200
body = ""
then = "in_doubt"
"#;
    let found = faults(text);
    for wanted in [
        "line 2: version must be",
        "line 12: op.send.body.a names 'nobody'",
        "line 13: unknown key colour in op.send",
        "line 17: the rule can never match: the one of line 14",
        "line 26: op.find.rule.when.eq.x must be a pointer",
        "line 28: the case is for op.list",
    ] {
        assert!(found.iter().any(|fault| fault.starts_with(wanted)), "{wanted}: {found:#?}");
    }
    // And what only follows from another fault is not named.
    assert_eq!(found.len(), 6, "{found:#?}");
    let without =
        text.replace("{{ nobody }}", "{{ key }}").replace("eq = { x = 1 }", "has = [\"/x\"]");
    let found = faults(&without);
    for wanted in [
        "line 20: op.find looks for neither key, task nor code",
        "line 20: op.find says succeeded, and nothing says the amount",
        "line 25: says failed without a reason",
    ] {
        assert!(found.iter().any(|fault| fault.starts_with(wanted)), "{wanted}: {found:#?}");
    }
}

/// A file whose times, limits and base are these.
fn timed(http: &str, times: &str, limits: &str) -> String {
    format!(
        r#"id = "p"
version = 1
[http]
{http}
[identity]
key = "uuid"
dedup = "none"
[times]
{times}
[limits]
{limits}
[op.send]
path = "/r"
[[op.send.rule]]
when = {{ status = [200], eq = {{ "/state" = "ok" }} }}
then = "processing"
"#
    )
}

const BASE: &str = "base = \"https://provider.test\"";

#[test]
fn times_and_limits_that_contradict_each_other_are_named_with_their_lines() {
    let found = faults(&timed(
        "base = \"https://provider.test:0/v1\"\ntimeout = \"20s\"",
        "max_processing = \"5s\"\nvisibility = \"6s\"\nsend_window = \"19s\"",
        "in_flight = 4\nper_account_in_flight = 5\nquota = { remaining = \"x-a\", reset = \"X-A\" }",
    ));
    for wanted in [
        "line 4: http.base has the port 0",
        "line 11: times.visibility must not be longer than times.max_processing",
        "line 15: limits.per_account_in_flight must not be more than limits.in_flight",
        "line 16: limits.quota.reset must be another header",
    ] {
        assert!(found.iter().any(|fault| fault.starts_with(wanted)), "{wanted}: {found:#?}");
    }
    let late = timed(
        &format!("{BASE}\ntimeout = \"20s\""),
        "max_processing = \"1m\"\nsend_window = \"19s\"",
        "",
    );
    let wanted =
        "line 11: times.send_window must not be shorter than http.timeout: a call may take as long";
    assert_eq!(faults(&late), [wanted]);
    assert!(Profile::parse_applied(&late).is_ok(), "redemptions may be pinned to it");
    let connects = timed(
        &format!("{BASE}\nconnect_timeout = \"5s\""),
        "max_processing = \"1m\"\nsend_window = \"3s\"",
        "",
    );
    let wanted = "line 11: times.send_window must not be shorter than http.connect_timeout";
    assert_eq!(faults(&connects), [wanted]);
}

#[test]
fn times_that_are_left_out_follow_those_that_are_given() {
    let read = |http: &str, times: &str| {
        let text = timed(&format!("{BASE}\n{http}"), times, "");
        let profile = Profile::parse(&text).unwrap();
        let times = profile.times;
        let seconds = [
            profile.http.timeout,
            profile.http.connect_timeout,
            times.send_window,
            times.visibility,
        ];
        seconds.map(|time| time.as_secs())
    };
    assert_eq!(read("", "max_processing = \"2m\""), [10, 2, 30, 5]);
    assert_eq!(read("", "max_processing = \"3s\"\nsend_window = \"1s\""), [1, 1, 1, 3]);
    assert_eq!(read("timeout = \"45s\"", "max_processing = \"2m\""), [45, 2, 45, 5]);
    let equal = "max_processing = \"5s\"\nvisibility = \"5s\"\nsend_window = \"9s\"";
    assert_eq!(read("timeout = \"9s\"", equal), [9, 2, 9, 5]);
}

#[test]
fn what_is_not_toml_is_named_with_its_line() {
    let faults = faults("id = \"p\"\nversion = = 1\nid = \"q\"\n[http\n");
    assert!(faults.iter().any(|fault| fault.starts_with("line 2: not TOML")), "{faults:#?}");
    assert!(faults.iter().any(|fault| fault.starts_with("line 4: not TOML")), "{faults:#?}");
    assert!(!self::faults("").is_empty());
}

/// What is wrong with a profile as a whole. Each has the words that its fault must have.
#[test]
fn what_cannot_be_right_is_refused() {
    let by_code = r#"
[op.find]
path = "/cards/{{ code }}"
TAKE
[[op.find.rule]]
when = { status = [200], has = ["/used"] }
then = "succeeded"
"#;
    let backed = by_code.replace(
        "TAKE",
        r#"take = { account = "/user", time = { at = "/at", unit = "epoch" }, amount = "expected" }"#,
    );
    assert_eq!(faults(&minimal(&backed)), [] as [&str; 0]);
    for (more, wanted) in [
        ("[[op.send.rule]]\nthen = \"succeeded\"", "by the status alone"),
        (
            "[[op.send.rule]]\nwhen = { status = [204] }\nthen = { failed = { spent = true, reason = \"X\" } }",
            "by the status alone",
        ),
        (
            "[[op.send.rule]]\nwhen = { status = [404], has = [\"/code\"] }\nthen = \"processing\"",
            "can never match",
        ),
        ("[[op.send.rule]]\nwhen = { status = [] }\nthen = \"processing\"", "can never match"),
        (
            "[[op.send.rule]]\nwhen = { eq = { \"/a\" = 1 }, in = { \"/a\" = [2, \"1\"] } }\nthen = \"processing\"",
            "can never hold",
        ),
        (
            "[[op.send.rule]]\nwhen = { has = [\"/a/b\"], absent = [\"/a\"] }\nthen = \"processing\"",
            "can never hold",
        ),
        (
            "[[op.send.rule]]\nwhen = { eq = { \"/a\" = 1, \"/a/b\" = 1 } }\nthen = \"processing\"",
            "can never hold",
        ),
        (
            "[[op.send.rule]]\nwhen = { status = [\"2xx\"] }\nthen = \"review\"\n[[op.send.rule]]\nwhen = { status = [\"5xx\"] }\nthen = \"review\"\n[[op.send.rule]]\nwhen = { status = [503, 200], has = [\"/a\"] }\nthen = \"processing\"",
            "can never match: one of those of lines",
        ),
        (
            "[op.look_up]\npath = \"/cards/{{ code }}\"\nheaders = { x-request = \"{{ key }}\" }\n[[op.look_up.rule]]\nwhen = { has = [\"/a\"] }\nthen = \"processing\"",
            "asks neither by key nor by task",
        ),
        (
            "[op.cancel]\npath = \"/x/{{ key }}\"\nas = \"send\"\nheaders = { X-A = \"a\", x-a = \"b\" }",
            "is there twice",
        ),
        (
            "[op.cancel]\npath = \"/x/{{ key }}\"\nas = \"send\"\nheaders = { x-a = \"a\\nb\" }",
            "has a control character",
        ),
        (
            "[[auth]]\nkind = \"bearer\"\ntoken = \"a\"\n[[auth]]\nkind = \"basic\"\nuser = \"a\"\npassword = \"b\"",
            "sets the header authorization twice",
        ),
        (
            "[[op.send.rule]]\nwhen = { in = { \"/a\" = [] } }\nthen = \"processing\"",
            "can never match",
        ),
        (
            "[[op.send.rule]]\nwhen = { has = [\"/a\"], absent = [\"/a\"] }\nthen = \"processing\"",
            "can never hold",
        ),
        (
            "[[op.send.rule]]\nwhen = { status = [418] }\nthen = \"undone\"",
            "only cancel and reverse",
        ),
        ("[[op.send.rule]]\nwhen = { has = [\"@/a\"] }\nthen = \"processing\"", "has no items"),
        (
            "[op.look_up]\npath = \"/x\"\n[[op.look_up.rule]]\nwhen = { status = [404] }\nthen = \"not_found\"",
            "neither by key nor by task",
        ),
        (
            "[op.find]\npath = \"/x\"\n[[op.find.rule]]\nwhen = { status = [404] }\nthen = \"not_found\"",
            "could be anybody's",
        ),
        (
            "[op.cancel]\npath = \"/x\"\n[[op.cancel.rule]]\nwhen = { status = [204] }\nthen = \"undone\"",
            "could be about anybody's",
        ),
        (
            "[op.list]\npath = \"/x\"\nitems = \"/l\"\n[[op.list.rule]]\nwhen = { status = [404] }\nthen = \"not_found\"",
            "needs take.key",
        ),
        ("[op.cancel]\npath = \"/x/{{ key }}\"\nas = \"find\"", "which is not there"),
        ("[op.cancel]\npath = \"/x/{{ key }}\"\nas = \"cancel\"", "itself"),
        ("[op.cancel]\npath = \"/x/{{ key }}\"\n", "has no rule"),
        ("[op.look_up]\npath = \"/x/{{ key }}\"\nitems = \"/l\"\nas = \"send\"", "no match"),
        (
            "[op.look_up]\npath = \"/x/{{ key }}\"\npages = { next = \"/n\" }\nas = \"send\"",
            "never names {{ page? }}",
        ),
        ("[op.look_up]\npath = \"/x/../{{ key }}\"\nas = \"send\"", "'.' or '..'"),
        ("[op.look_up]\npath = \"/x?a={{ key }}\"\nas = \"send\"", "stands in query"),
        (
            "[op.look_up]\npath = \"/x/{{ key }}\"\nheaders = { host = \"x\" }\nas = \"send\"",
            "cannot set",
        ),
        (
            "[op.cancel]\npath = \"/x/{{ key }}\"\nends_doubt = true\nas = \"send\"",
            "look_up, find and reverse alone",
        ),
        (
            &by_code.replace("TAKE", "take = { amount = \"expected\" }"),
            "needs take.account and take.time",
        ),
        (
            &by_code.replace("TAKE", "take = { account = \"/a\", amount = \"expected\" }"),
            "needs take.account and take.time",
        ),
        (
            &by_code.replace(
                "TAKE",
                "take = { account = \"/a\", time = { at = \"/t\", unit = \"rfc3339\" } }",
            ),
            "nothing says the amount",
        ),
        (
            "[auth]\nkind = \"hmac\"\nsecret = \"{{ secret.s }}\"\nover = \"{{ request.body }}\"",
            "header or query is missing",
        ),
        ("[auth]\nkind = \"bearer\"\ntoken = \"{{ signature }}\"", "no value here"),
        (
            "[[auth]]\nkind = \"none\"\n[[auth]]\nkind = \"none\"\n[[auth]]\nkind = \"none\"",
            "once or twice",
        ),
        ("[limits]\nburst = 5", "needs a rate"),
        (
            "[webhook]\npath = \"p\"\nfinds = { key = \"/k\" }\nhmac = { secret = \"{{ secret.s }}\", over = \"x\", header = \"x-s\" }",
            "request.body",
        ),
        ("[[case]]\nop = \"find\"\nstatus = 200\nthen = \"in_doubt\"", "which is not there"),
    ] {
        let faults = faults(&minimal(more));
        assert!(faults.iter().any(|fault| fault.contains(wanted)), "{wanted}: {more}\n{faults:#?}");
    }
    let by_header =
        "[op.look_up]\npath = \"/x\"\nheaders = { x-key = \"{{ key }}\" }\nas = \"send\"";
    assert_eq!(faults(&minimal(by_header)), [] as [&str; 0]);
    let keyless = minimal("").replace("/r/{{ key }}", "/r");
    assert!(faults(&keyless)[0].contains("never sends {{ key }}"));
    for (base, refused) in [
        ("http://provider.test", true),
        ("http://127.0.0.1:8080/x", false),
        ("http://[::1]:8080", false),
        ("http://localhost:1", false),
        ("http://127.0.0.1.example.com", true),
        ("https://u@provider.test", true),
        ("https://provider.test/#f", true),
        ("ftp://provider.test", true),
        ("provider.test", true),
    ] {
        let text = minimal("").replace("https://provider.test/api/", base);
        assert_eq!(!faults(&text).is_empty(), refused, "{base}");
    }
    let allowed = minimal("")
        .replace("https://provider.test/api/\"", "http://far.test\"\nallow_plain = true");
    assert_eq!(faults(&allowed), [] as [&str; 0]);
}

#[test]
fn the_next_page_is_a_value_and_never_an_address() {
    let more = r#"
[op.list]
path = "/l"
query = { cursor = "{{ page? }}" }
items = "/items"
pages = { next = "/next", param = "cursor" }
take = { key = "@/key", amount = "expected" }
[[op.list.rule]]
when = { has = ["@/done"] }
then = "succeeded"
"#;
    let profile = loads(&minimal(more));
    let next = |body: &str| profile.next_page(OpKind::List, body.as_bytes());
    assert_eq!(next(r#"{"next": "https://evil.test/x?cursor=a%20b"}"#), Ok(Some("a b".to_owned())));
    assert_eq!(next(r#"{"next": "/l?x=1&cursor=2"}"#), Ok(Some("2".to_owned())));
    for last in [r#"{"next": null}"#, "{}", r#"{"next": ""}"#] {
        assert_eq!(next(last), Ok(None), "{last}");
    }
    for odd in [
        r#"{"next": "https://p.test/?page=2"}"#,
        r#"{"next": {}}"#,
        r#"{"next": "a", "next": "b"}"#,
        "x",
    ] {
        assert!(next(odd).is_err(), "{odd}");
    }
}

#[test]
fn a_webhook_is_heard_only_with_its_signature_and_in_time() {
    let more = r#"
[webhook]
path = "p"
finds = { key = "/data/ref" }
hmac = { secret = "{{ secret.s }}", over = "{{ request.header.x-time }}.{{ request.body }}", header = "X-Sig", format = "v1={{ signature }}", time = "x-time", tolerance = "5m" }
"#;
    let profile = loads(&minimal(more));
    let hook = profile.webhook.as_ref().unwrap();
    let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
    let secrets = BTreeMap::from([("s".to_owned(), "key".to_owned())]);
    let body = r#"{"data": {"ref": "k-1"}}"#;
    let sign = |time: &str| {
        let over = format!("{time}.{body}");
        let signature = auth::Hash::Sha256.sign(b"key", over.as_bytes());
        vec![
            ("x-time".to_owned(), time.to_owned()),
            ("x-sig".to_owned(), format!("v1={}", hex::encode(signature))),
        ]
    };
    let heard = hook.hear(&secrets, &sign("1800000100"), body, now);
    assert_eq!(heard, Ok(vec![("key", "k-1".to_owned())]));
    assert!(hook.hear(&secrets, &sign("1800000301"), body, now).is_err(), "too old or too new");
    assert!(hook.hear(&secrets, &sign("1800000100"), "{}", now).is_err(), "another body");
    let mut twice = sign("1800000100");
    twice.push(twice[1].clone());
    assert!(hook.hear(&secrets, &twice, body, now).is_err());
    assert!(hook.hear(&secrets, &[], body, now).is_err());
    assert!(hook.hear(&BTreeMap::new(), &sign("1800000100"), body, now).is_err());
}

proptest! {
    /// Whatever is done to a file, it is read or refused.
    #[test]
    fn no_text_breaks_the_reader(
        (at, length) in (0_usize..20_000, 0_usize..200),
        with in "[ -~\\n{}|?\"\\[\\]]{0,20}",
    ) {
        let mut text = BUILT_IN.to_owned();
        let at = text.floor_char_boundary(at.min(text.len()));
        let end = text.floor_char_boundary((at + length).min(text.len()));
        text.replace_range(at..end, &with);
        if let Err(faults) = Profile::parse(&text) {
            prop_assert!(!faults.is_empty());
            let lines = text.lines().count() + 1;
            prop_assert!(faults.iter().all(|fault| (1..=lines).contains(&fault.line)), "{faults:?}");
        }
    }
}

#[test]
fn a_file_that_is_deep_or_long_is_refused() {
    for text in [
        format!("a = {}1{}", "[".repeat(10_000), "]".repeat(10_000)),
        format!("{} = 1", vec!["a"; 10_000].join(".")),
        "#".repeat(300 * 1024),
    ] {
        assert!(!faults(&text).is_empty());
    }
}
