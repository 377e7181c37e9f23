//! One call that a person makes to see how a profile asks, and how it reads the answer. Outside of all books.
//!
//! What is answered here is fit to be printed: without codes, credentials, tokens and signatures.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use http::{HeaderMap, Version};

use super::{MAX_BODY_BYTES, MAX_PAGE_BYTES, Provider};
use crate::{
    domain::{money::Currency, redemption::CardCode},
    provider::{
        Answer,
        classify::{Circumstances, Doubt, Proof, Secrets, Subject, prove},
        http::{Call as HttpCall, Head},
        profile::{Answered, MAX_PAGES, Op, OpKind, Reading, Shown, Unusable, Values},
        scrub::{clean_of, variants},
    },
};

/// The longest part of a body that is shown, in characters.
const MAX_SHOWN_CHARS: usize = 8 * 1024;
/// The most elements of a list that are judged for people.
const MAX_ELEMENTS: usize = 20;
/// Headers that say how an answer is to be read. Those of quotas, and names of requests, are shown too.
const HEADERS: [&str; 8] = [
    "content-type",
    "content-length",
    "content-encoding",
    "transfer-encoding",
    "retry-after",
    "location",
    "www-authenticate",
    "date",
];
/// Parts of the names of others that matter.
const PARTS_OF_NAMES: [&str; 4] = ["ratelimit", "rate-limit", "request-id", "correlation"];

/// What to try. No `Debug`: it holds a code and credentials.
pub struct Trial {
    /// The op; `None` fetches a token, and does nothing else.
    pub kind: Option<OpKind>,
    /// Its values, but for the provider's secrets and the token.
    pub values: Values,
    /// What amounts are in where the answer does not tell.
    pub currency: Currency,
}

/// A request that was made, and what came back.
pub struct Exchange {
    /// What it was for.
    pub what: &'static str,
    /// As it was sent, with names for what is secret.
    pub request: Shown,
    /// The answer, or why there is none.
    pub answer: Result<Heard, String>,
}

/// An answer, for people.
pub struct Heard {
    /// The version of HTTP.
    pub version: &'static str,
    /// The status code.
    pub status: u16,
    /// The headers that matter.
    pub headers: Vec<(String, String)>,
    /// The body, scrubbed, and its end left out where it is long.
    pub body: String,
    /// How long the body is.
    pub body_bytes: usize,
}

/// How an answer was judged.
pub struct Judged {
    /// The line of the rule that matched; `None`: the last one, which every op has, and which says in doubt.
    pub rule: Option<usize>,
    /// What each pointer gave.
    pub taken: Vec<(&'static str, String)>,
    /// Of an op with items: how many elements fit.
    pub found: Option<&'static str>,
    /// The verdict's word.
    pub verdict: &'static str,
    /// What it comes with, for people.
    pub details: String,
}

/// What came of a trial.
#[derive(Default)]
pub struct Tried {
    /// Each request and its answer, in order.
    pub exchanges: Vec<Exchange>,
    /// The verdict; of a list, one for each element. Empty where there was no whole answer.
    pub judged: Vec<Judged>,
    /// What else is to be told.
    pub notes: Vec<String>,
}

impl Provider {
    /// What a trial needs and does not have: names as templates write them, and secrets with what is wrong with them.
    pub fn lacks(&self, trial: &Trial) -> Vec<String> {
        let mut values = trial.values.clone();
        let mut lacking = Vec::new();
        match self.secrets() {
            Ok(secrets) => values.secrets = secrets,
            Err(missing) => lacking.extend(missing),
        }
        values.token = Some(String::from("1"));
        let named = self.0.profile.lacks(trial.kind, &values).into_iter();
        // A missing secret is told with its file.
        lacking.extend(named.filter(|name| !name.starts_with("secret.")));
        lacking
    }

    /// The requests that a trial would make, without making them.
    pub fn would_send(&self, trial: &Trial) -> Result<Vec<(&'static str, Shown)>, Unusable> {
        let mut values = trial.values.clone();
        values.secrets = self.secrets().unwrap_or_default();
        let mut requests = Vec::new();
        if self.0.profile.fetches_token() {
            requests.push(("a token", self.0.profile.shown(None, &values)?));
            // Shown by its name.
            values.token = Some(String::from("token"));
        }
        if let Some(kind) = trial.kind {
            requests.push((kind.name(), self.0.profile.shown(Some(kind), &values)?));
        }
        Ok(requests)
    }

    /// Makes the call, and says how it is judged. An op that is not the first page of a list is asked for all its pages.
    pub async fn try_out(&self, trial: &Trial) -> Tried {
        let mut tried = Tried::default();
        let mut values = trial.values.clone();
        values.secrets = self.secrets().unwrap_or_default();
        if self.0.profile.fetches_token() {
            let Some((status, body)) = self.exchange(None, &values, &mut tried).await else {
                return tried;
            };
            match self.0.profile.read_token(status, &body) {
                Ok((token, lasts)) => {
                    let lasts = lasts.map(|lasts| format!(", for {} s", lasts.as_secs()));
                    tried.notes.push(format!("a token was given{}", lasts.unwrap_or_default()));
                    values.token = Some(token);
                }
                Err(why) => {
                    tried.notes.push(format!("no token was given: {why}"));
                    return tried;
                }
            }
        }
        if values.code.is_none() && trial.kind.is_some() {
            let note = "no code was given, so one that the answer holds is shown";
            tried.notes.push(note.to_owned());
        }
        if let Some(op) = trial.kind.and_then(|kind| self.0.profile.op(kind)) {
            self.try_op(op, trial, values, &mut tried).await;
        }
        tried
    }

    async fn try_op(&self, op: &Op, trial: &Trial, mut values: Values, tried: &mut Tried) {
        let mut pages = Vec::new();
        let mut is_whole = true;
        loop {
            let Some(page) = self.exchange(Some(op.kind), &values, tried).await else {
                is_whole = false;
                break;
            };
            let next = self.0.profile.next_page(op.kind, &page.1);
            pages.push(page);
            match next {
                Ok(None) => break,
                Ok(Some(_)) if op.kind == OpKind::List => {
                    tried.notes.push("there are more pages: give --page".to_owned());
                    break;
                }
                Ok(Some(page)) if pages.len() < MAX_PAGES => values.page = Some(page),
                Ok(Some(_)) => is_whole = false,
                Err(why) => {
                    tried.notes.push(format!("no further page is asked for: {why}"));
                    is_whole = false;
                }
            }
            if !is_whole {
                break;
            }
        }
        if pages.is_empty() {
            return;
        }
        let answered: Vec<_> = pages
            .iter()
            .map(|(status, body)| Answered { status: *status, body, retry_after: None })
            .collect();
        if op.kind == OpKind::List {
            let readings = match Reading::of_each(op, &values, trial.currency, answered[0]) {
                Ok(readings) => {
                    tried.notes.push(format!("the page has {} elements", readings.len()));
                    readings
                }
                Err(whole) => vec![*whole],
            };
            let shown = readings.iter().take(MAX_ELEMENTS);
            tried.judged.extend(shown.map(|it| self.judged(op, it, trial, &values)));
        } else {
            let reading = Reading::of(op, &values, trial.currency, &answered, is_whole);
            tried.judged.push(self.judged(op, &reading, trial, &values));
        }
    }

    /// Makes one request. `None`: there was no whole answer.
    async fn exchange(
        &self,
        kind: Option<OpKind>,
        values: &Values,
        tried: &mut Tried,
    ) -> Option<(u16, bytes::Bytes)> {
        let profile = &self.0.profile;
        let what = kind.map_or("a token", OpKind::name);
        let request = match kind {
            Some(kind) => profile.request(kind, values),
            None => profile.token_request(values)?,
        };
        let (request, shown) = match request.and_then(|it| Ok((it, profile.shown(kind, values)?))) {
            Ok(both) => both,
            Err(why) => {
                tried.notes.push(format!("nothing can be sent: {why}"));
                return None;
            }
        };
        let max_bytes = if kind == Some(OpKind::List) { MAX_PAGE_BYTES } else { MAX_BODY_BYTES };
        // On a connection of its own, so that the answer is to nothing else.
        let call = HttpCall { request, max_bytes, about: None, alone: true };
        let (answer, head) = self.0.http.call_and_tell(call).await;
        let hidden = hidden(values);
        let clean = |text: &str| clean_of(code(values).as_ref(), &hidden, text, MAX_SHOWN_CHARS);
        let (answer, whole) = match answer {
            Answer::Http(http) => {
                let text = match kind {
                    None if (200..300).contains(&http.status) => without_texts(&http.body),
                    _ => String::from_utf8_lossy(&http.body).into_owned(),
                };
                let heard = Heard {
                    version: head.as_ref().map_or("HTTP", |head| version(head.version)),
                    status: http.status,
                    headers: head.map(|head| self.headers(&head, &clean)).unwrap_or_default(),
                    body: clean(&text),
                    body_bytes: http.body.len(),
                };
                (Ok(heard), Some((http.status, http.body)))
            }
            Answer::NeverSent(why) => (Err(format!("nothing was sent: {}", clean(&why))), None),
            Answer::Lost(why) => (Err(format!("the answer was lost: {}", clean(&why))), None),
            _ => (Err("there is no answer".to_owned()), None),
        };
        tried.exchanges.push(Exchange { what, request: shown, answer });
        whole
    }

    fn headers(&self, head: &Head, clean: &impl Fn(&str) -> String) -> Vec<(String, String)> {
        let quota = self.0.profile.limits.quota.as_ref();
        let matters = |name: &str| {
            HEADERS.contains(&name)
                || PARTS_OF_NAMES.iter().any(|part| name.contains(part))
                || quota.is_some_and(|quota| {
                    [&quota.remaining, &quota.reset].iter().any(|it| it.eq_ignore_ascii_case(name))
                })
        };
        let headers: &HeaderMap = &head.headers;
        let shown = headers.iter().filter(|(name, _)| matters(name.as_str()));
        shown
            .map(|(name, value)| {
                (name.to_string(), clean(&String::from_utf8_lossy(value.as_bytes())))
            })
            .collect()
    }

    fn judged(&self, op: &Op, reading: &Reading, trial: &Trial, values: &Values) -> Judged {
        let hidden = hidden(values);
        let clean = |text: &str| clean_of(code(values).as_ref(), &hidden, text, MAX_SHOWN_CHARS);
        let mut subject = Subject {
            key: values.key.clone().unwrap_or_default(),
            task: values.task.clone(),
            account: values.account.id.clone().unwrap_or_default(),
            currency: trial.currency,
            code: code(values),
            recorded_at: values.now,
            secrets: Secrets(hidden.clone()),
        };
        if op.kind == OpKind::List {
            subject.own(reading);
        }
        let is_send = op.kind == OpKind::Send;
        let circumstances = Circumstances {
            doubt: if is_send { Doubt::FirstSend } else { Doubt::InDoubt },
            in_window: true,
            is_alone: true,
            since_recorded: Duration::ZERO,
            since_last_send: None,
        };
        let proof = prove(&self.0.profile, op, reading, &subject, &circumstances);
        let found = op.has_items().then_some(match reading.found {
            Some(true) => "one element fits",
            Some(false) => "no element fits",
            None => "several elements fit, or there is no array",
        });
        let taken = reading.told.each(op).into_iter().map(|(name, text)| (name, clean(&text)));
        Judged {
            rule: reading.rule,
            taken: taken.collect(),
            found: found.filter(|_| op.kind != OpKind::List),
            verdict: proof.word(),
            details: clean(&details(op.kind, &proof)),
        }
    }
}

/// All that must not be shown, but for the code: also as it is written in URLs, JSON and headers.
fn hidden(values: &Values) -> Vec<String> {
    let secrets = values.secrets.values();
    let known: Vec<&String> =
        secrets.chain(values.account.secrets.values()).chain(&values.token).collect();
    let mut hidden: Vec<String> = known.iter().flat_map(|text| variants(text)).collect();
    let code = values.code.iter().flat_map(|code| variants(code));
    hidden.extend(code);
    // The pair of basic auth, by each two of them.
    for user in &known {
        hidden.extend(known.iter().map(|password| BASE64.encode(format!("{user}:{password}"))));
    }
    // The longest first: one may be a part of another.
    hidden.sort_by_key(|text| std::cmp::Reverse(text.len()));
    hidden
}

/// The longest text of a token's answer that is shown: `Bearer` is no secret.
const MAX_PLAIN_CHARS: usize = 8;

/// The answer with a token, without its longer texts: the pointer to the token may be wrong, and there may be others.
fn without_texts(body: &[u8]) -> String {
    fn blank(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::String(text) if text.chars().count() > MAX_PLAIN_CHARS => {
                "…".clone_into(text);
            }
            serde_json::Value::Array(list) => list.iter_mut().for_each(blank),
            serde_json::Value::Object(map) => map.values_mut().for_each(blank),
            _ => {}
        }
    }
    match serde_json::from_slice::<serde_json::Value>(body) {
        Ok(mut json) => {
            blank(&mut json);
            json.to_string()
        }
        Err(_) => "(not JSON, and not shown: it may hold a token)".to_owned(),
    }
}

fn code(values: &Values) -> Option<CardCode> {
    values.code.as_deref().and_then(|code| CardCode::parse(code).ok())
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}

/// What a verdict comes with.
fn details(kind: OpKind, proof: &Proof) -> String {
    let wait = |after: &Option<Duration>| {
        after.map_or(String::new(), |after| format!("; it asks to wait {} ms", after.as_millis()))
    };
    match proof {
        Proof::Succeeded { amount, provider_ref, country } => {
            let country = country.as_ref().map(|it| format!(", country {it}")).unwrap_or_default();
            // Nothing was done that would have a name.
            let did = kind != OpKind::Inquire;
            let named = if did { format!(", reference {provider_ref}") } else { String::new() };
            format!("{amount} in minor units{named}{country}")
        }
        Proof::Failed { failure, hold } => {
            let spent = if failure.code_spent { "spent" } else { "not spent" };
            let hold = hold.map(|_| ", and the account is held").unwrap_or_default();
            format!("{}, the code is {spent}{hold}: {}", failure.reason, failure.message)
        }
        Proof::Review { failure, .. } | Proof::Undone(failure) => {
            format!("{}: {}", failure.reason, failure.message)
        }
        Proof::Processing { task, after, answer } => {
            let task = task.as_ref().map(|task| format!("; task {task}")).unwrap_or_default();
            format!("{answer}{task}{}", wait(after))
        }
        Proof::NotExecuted { after, answer, .. } | Proof::Busy { after, answer, .. } => {
            format!("{answer}{}", wait(after))
        }
        Proof::Duplicate { answer }
        | Proof::NotFound { answer }
        | Proof::Unproven { answer }
        | Proof::InDoubt { answer } => answer.clone(),
    }
}
