//! What is fuzzed of providers: the files that describe them, and what they answer.

use std::{
    collections::BTreeMap,
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderName, HeaderValue};
use time::OffsetDateTime;

use super::{
    Answer, HttpAnswer, check,
    classify::{self, Call, Doubt},
    http::{quota, retry_after},
    profile::{KeyKind, OpKind, Profile, Values},
};
use crate::domain::{
    id::{AccountId, RedemptionId},
    money::{Currency, MAX_AMOUNT_MINOR},
    redemption::{AccountFacts, Ask, CardCode, Known, Step, Verdict},
};

/// The profiles that come with the program.
const PROFILES: [&str; 8] = [
    include_str!("../../profiles/holdfast.toml"),
    include_str!("../../profiles/adyen-stored-value.toml"),
    include_str!("../../profiles/dt-one.toml"),
    include_str!("../../profiles/fiserv.toml"),
    include_str!("../../profiles/reloadly.toml"),
    include_str!("../../profiles/square.toml"),
    include_str!("../../profiles/task-api.toml"),
    include_str!("../../profiles/voucherify.toml"),
];

static READ: LazyLock<BTreeMap<String, Profile>> = LazyLock::new(|| {
    let read = PROFILES.iter().map(|text| Profile::parse(text).expect("a profile of ours"));
    read.map(|profile| (profile.id.to_string(), profile)).collect()
});

/// What stands between a profile and an answer.
const MARK: &[u8] = b"\n====\n";

const ID: &str = "0190163d-8694-739b-aea5-966c26f8ad90";
const CODE: &str = "SECR-ET12-3456";
const PIN: &str = "Pin7741Q";
const TASK: &str = "task-1";
const CALLS: [Call; 5] = [Call::Send, Call::LookUp, Call::Find, Call::Cancel, Call::Reverse];
const KINDS: [OpKind; 7] = [
    OpKind::Send,
    OpKind::LookUp,
    OpKind::Find,
    OpKind::Cancel,
    OpKind::Reverse,
    OpKind::Inquire,
    OpKind::List,
];

/// Reads the input as a profile, runs its cases, and makes the requests that it describes.
pub(crate) fn profile(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match Profile::parse(text) {
        Err(faults) => {
            assert!(!faults.is_empty(), "it is refused for nothing");
            for fault in faults {
                assert!((1..=text.lines().count() + 1).contains(&fault.line), "{fault}");
                assert!(!fault.message.chars().any(char::is_control), "{fault}");
            }
            let _ = Profile::parse_applied(text);
        }
        Ok(profile) => {
            Profile::parse_applied(text).expect("what may be applied can be read afterwards");
            check::run_cases(&profile);
            check_requests(&profile);
        }
    }
}

/// Every request goes to the provider, or to where its tokens are.
fn check_requests(profile: &Profile) {
    let values = Values::of_ask(profile.identity.key, &ask(false));
    let base = &profile.http.base;
    assert!(base.scheme() == "https" || profile.http.allow_plain || is_here(base.host_str()));
    for kind in KINDS {
        let Ok(request) = profile.request(kind, &values) else { continue };
        assert_eq!(request.origin, base.origin().ascii_serialization());
        assert!(request.path.starts_with(base.path().trim_end_matches('/')), "another path");
        let is_text = |text: &str| !text.chars().any(|c| c.is_control() || c == ' ');
        assert!(is_text(&request.path) && is_text(&request.query), "what is no URL");
        for (name, value) in &request.headers {
            assert!(HeaderName::try_from(name).is_ok() && HeaderValue::from_str(value).is_ok());
        }
    }
    let _ = profile.token_request(&values);
}

fn is_here(host: Option<&str>) -> bool {
    host.is_some_and(|host| host == "localhost" || host.starts_with("127.") || host == "[::1]")
}

/// Reads the input as a profile, which is a file's text or the name of one of ours; [`MARK`]; and an answer as HTTP has
/// it: the status, headers, an empty line, a body.
pub(crate) fn provider_answer(input: &[u8]) {
    let Some(at) = input.windows(MARK.len()).position(|part| part == MARK) else { return };
    let Ok(file) = std::str::from_utf8(&input[..at]) else { return };
    let answer = Told::read(&input[at + MARK.len()..]);
    match READ.get(file.trim()) {
        Some(profile) => check_answer(profile, &answer, true),
        None => {
            if let Ok(profile) = Profile::parse(file) {
                check_answer(&profile, &answer, false);
            }
        }
    }
}

/// An answer as it was told.
struct Told<'a> {
    status: u16,
    headers: HeaderMap,
    body: &'a [u8],
}

impl<'a> Told<'a> {
    fn read(input: &'a [u8]) -> Self {
        let (head, body) = match input.windows(2).position(|part| part == b"\n\n") {
            Some(at) => (&input[..at], &input[at + 2..]),
            None => (input, &b""[..]),
        };
        let mut lines = head.split(|byte| *byte == b'\n');
        let status = std::str::from_utf8(lines.next().unwrap_or_default());
        let status = status.ok().and_then(|status| status.trim().parse().ok()).unwrap_or(200);
        let header = |line: &[u8]| {
            let colon = line.iter().position(|byte| *byte == b':')?;
            let name = HeaderName::from_bytes(&line[..colon]).ok()?;
            Some((name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?))
        };
        Self { status, headers: lines.filter_map(header).collect(), body }
    }

    fn http(&self, profile: &Profile, first_on_connection: bool) -> HttpAnswer {
        let quota = profile.limits.quota.as_ref();
        let used_up = quota.and_then(|quota| quota::used_up(quota, &self.headers));
        let day = Duration::from_secs(24 * 60 * 60);
        assert!(used_up.is_none_or(|time| !time.is_zero() && time <= day), "{used_up:?}");
        HttpAnswer {
            status: self.status,
            retry_after: retry_after(&self.headers),
            quota_used_up: used_up,
            first_on_connection,
            body: self.body.to_vec().into(),
        }
    }
}

fn ask(is_later: bool) -> Ask {
    let now = OffsetDateTime::from(SystemTime::now());
    let currency = Currency::parse("USD").expect("a currency");
    let hour = Duration::from_secs(60 * 60);
    let known = if is_later {
        Known {
            task: Some(TASK.to_owned()),
            recorded_at: now - 3 * hour,
            age: 3 * hour,
            since_sent_again: Some(2 * hour),
        }
    } else {
        Known::at_first(now)
    };
    Ask {
        redemption_id: RedemptionId::parse(ID).expect("an id"),
        code: CardCode::parse(CODE).expect("a code"),
        account_id: AccountId::parse("account-1").expect("an id"),
        expected: None,
        currency,
        not_after: "2026-11-01T00:00:00Z".to_owned(),
        account: AccountFacts {
            country: Some("US".to_owned()),
            labels: BTreeMap::new(),
            credentials: [("pin".to_owned(), PIN.to_owned())].into(),
        },
        known,
    }
}

fn check_answer(profile: &Profile, told: &Told<'_>, is_ours: bool) {
    for is_alone in [true, false] {
        let http = told.http(profile, is_alone);
        let answer = Answer::Http(http.clone());
        for (doubt, is_later) in [(Doubt::FirstSend, false), (Doubt::InDoubt, true)] {
            let ask = ask(is_later);
            for call in CALLS {
                let step =
                    classify::classify(profile, &BTreeMap::new(), &ask, call, doubt, &answer);
                check_step(call, doubt, &step);
                let is_definite = matches!(step, Step::Settle(_) | Step::SendAgain { .. });
                // Profiles may choose elements by other things than names.
                assert!(
                    is_alone || !is_definite || !is_ours || names_ours(profile, &ask, told.body),
                    "{call:?} {doubt:?}: it may be to another request: {step:?}"
                );
            }
        }
        let ask = ask(false);
        let values = Values::of_ask(profile.identity.key, &ask);
        let inquired = classify::inquired(profile, &values, &ask.code, ask.currency, &http);
        check_text(&format!("{inquired:?}"));
        let _ = classify::page(profile, &values, ask.currency, http.as_answered());
    }
    let _ = profile.read_token(told.status, told.body);
    let headers = told.headers.iter().filter_map(|(name, value)| {
        Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
    });
    if let (Some(webhook), Ok(body)) = (&profile.webhook, std::str::from_utf8(told.body)) {
        let headers: Vec<_> = headers.collect();
        let secrets = webhook.secrets().into_iter().map(|name| (name, "a secret".to_owned()));
        let _ = webhook.hear(&secrets.collect(), &headers, body, OffsetDateTime::now_utc());
    }
}

fn check_step(call: Call, doubt: Doubt, step: &Step) {
    check_text(&format!("{step:?}"));
    let after = match step {
        Step::SendAgain { after, .. } => {
            assert!(call == Call::Send && doubt == Doubt::FirstSend, "it is sent twice");
            *after
        }
        Step::LookUp { after, .. } | Step::Busy { after, .. } => *after,
        Step::Settle(Verdict::Succeeded { amount, provider_ref }) => {
            assert!((0..=MAX_AMOUNT_MINOR).contains(&amount.amount_minor), "{amount}");
            assert!(provider_ref.chars().count() <= 128, "a long name");
            None
        }
        Step::Settle(Verdict::Failed { failure, .. } | Verdict::NeedsReview { failure, .. }) => {
            assert!(!failure.reason.is_empty() && failure.reason.chars().count() <= 128);
            assert!(failure.message.chars().count() <= 500, "a long message");
            None
        }
        Step::Unproven { .. } | Step::NotFound | Step::InDoubt { .. } => None,
    };
    let bounds = Duration::from_millis(100)..=Duration::from_secs(60 * 60);
    assert!(after.is_none_or(|after| bounds.contains(&after)), "to wait for {after:?}");
}

/// What is kept has neither the code nor the credential in it.
fn check_text(text: &str) {
    let letters: String = text.chars().filter(char::is_ascii_alphanumeric).collect();
    let letters = letters.to_ascii_uppercase();
    assert!(!letters.contains("SECRET123456"), "the code is kept: {text}");
    assert!(!text.contains(PIN), "a credential is kept: {text}");
}

/// Whether a body names our key or our task anywhere.
fn names_ours(profile: &Profile, ask: &Ask, body: &[u8]) -> bool {
    let body = unescaped(&String::from_utf8_lossy(body)).to_lowercase();
    let key = profile.identity.key.of(ask.redemption_id);
    let key = match profile.identity.key {
        KeyKind::Digits(_) => key.trim_start_matches('0'),
        KeyKind::Uuid | KeyKind::Hex(_) => &key,
    };
    body.contains(key) || ask.known.task.as_ref().is_some_and(|task| body.contains(task))
}

/// With JSON's `\u0031` and `\/` as what they stand for, wherever they are.
fn unescaped(text: &str) -> String {
    let mut parts = text.replace("\\/", "/");
    while let Some(at) = parts.find("\\u") {
        let code = parts.get(at + 2..at + 6).and_then(|hex| u32::from_str_radix(hex, 16).ok());
        match code.and_then(char::from_u32) {
            Some(c) => parts.replace_range(at..at + 6, c.encode_utf8(&mut [0; 4])),
            None => parts.replace_range(at..at + 2, ""),
        }
    }
    parts
}
