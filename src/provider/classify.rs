//! THE table: what an answer of the provider proves.
//!
//! Definite only where it is proven; anything else is in doubt, and doubt is sticky. Every row is an
//! arm of [`classify`] or of [`by_state`]; nothing else in the program reads an answer.
//!
//! | answer | first send | once in doubt |
//! |---|---|---|
//! | never sent | send again, in the end `FAILED` | still in doubt |
//! | 200/201, `succeeded`, as asked | `SUCCEEDED` | same |
//! | 200/201, another account or currency | `NEEDS_REVIEW` | same |
//! | 402, or state `failed` | `FAILED` | `FAILED` only if told by our key |
//! | 202, or state `processing` | look up | look up |
//! | 409 in progress; a cancel that came too late | look up | look up |
//! | 410, or state `cancelled` | `FAILED`, code not spent | same, only if told by our key |
//! | 404 to a look-up | not found, which proves nothing | same |
//! | 429/503 with `"executed": false` | send again | look up, when it is less busy |
//! | 422, lost, other statuses, malformed | in doubt | in doubt |

use std::time::Duration;

use super::{
    Answer, HttpAnswer,
    scrub::{MAX_MESSAGE_CHARS, clean},
    wire,
};
use crate::{
    domain::{
        id::RedemptionId,
        money::{Currency, MAX_AMOUNT_MINOR, Money},
        redemption::{Ask, Failure, Step, Verdict, reason},
    },
    injection::{self, Guard},
};

/// The longest failure code, and the longest name of the provider's own, in characters.
const MAX_NAME_CHARS: usize = 128;
/// The longest wait that an answer may ask for.
const MAX_AFTER: Duration = Duration::from_secs(3600);

/// What the answer is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// `POST /redemptions`.
    Send,
    /// `GET /redemptions/{key}`.
    LookUp,
    /// `POST /redemptions/{key}/cancel`.
    Cancel,
}

/// Whether an earlier call may have been executed without our knowing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// No: every call before this one is known not to have been executed, or to be under way.
    FirstSend,
    /// Yes.
    InDoubt,
}

/// Says what the answer to a call calls for.
pub fn classify(ask: &Ask, call: Call, doubt: Doubt, answer: &Answer) -> Step {
    let http = match answer {
        Answer::NeverSent(why) => {
            return never_sent(call, doubt, &clean(&ask.code, why, MAX_MESSAGE_CHARS));
        }
        Answer::Lost(why) if !injection::holds(Guard::LostIsNoProof) => {
            return never_sent(call, doubt, why);
        }
        Answer::Lost(why) => {
            return Step::InDoubt { answer: clean(&ask.code, why, MAX_MESSAGE_CHARS) };
        }
        Answer::Http(http) => http,
    };
    match (call, http.status) {
        (_, 200) | (Call::Send, 201) => by_state(&Told::new(ask, call, doubt, http)),
        (_, 202) => look_up(&Told::new(ask, call, doubt, http)),
        (_, 402) => refused(&Told::new(ask, call, doubt, http)),
        // Not proof: the request may still be on its way.
        (Call::LookUp, 404) => Step::NotFound,
        // To a cancel it says that the redemption has succeeded; the look-up tells how.
        (_, 409) => look_up(&Told::new(ask, call, doubt, http)),
        (Call::Send, 410) => gone(&Told::new(ask, call, doubt, http)),
        // The key was seen with other bytes. That is a bug or a collision, and says nothing about
        // what became of those bytes, so it stays open until the key itself is looked up.
        (Call::Send, 422) => {
            in_doubt(ask, http, "the key was seen before with another payload", problem(http))
        }
        (_, 429 | 503) if problem(http).executed == Some(false) => busy(ask, call, doubt, http),
        _ => in_doubt(ask, http, "which the contract does not have here", problem(http)),
    }
}

/// Nothing left. On a first send that is the whole truth; of a look-up, or once in doubt, it says
/// nothing about the sends before.
fn never_sent(call: Call, doubt: Doubt, why: &str) -> Step {
    match (call, doubt) {
        (Call::Send, Doubt::FirstSend) => Step::SendAgain {
            give_up: not_spent(
                reason::PROVIDER_UNREACHABLE,
                format!("the provider could not be reached: {why}"),
            ),
            after: None,
        },
        _ => Step::InDoubt { answer: format!("the provider could not be reached: {why}") },
    }
}

/// Not executed, says the provider. Of a first send that settles it; once in doubt it speaks only
/// of this call, not of the ones before.
fn busy(ask: &Ask, call: Call, doubt: Doubt, http: &HttpAnswer) -> Step {
    let problem = problem(http);
    let after = hint(problem.retry_after_ms, http);
    let answer = said(ask, http, "the provider is busy and executed nothing", problem);
    match (call, doubt) {
        (Call::Send, Doubt::FirstSend) => {
            Step::SendAgain { give_up: not_spent(reason::PROVIDER_BUSY, answer), after }
        }
        _ => Step::Busy { after, answer },
    }
}

/// An answer that should be a redemption, and what it is to.
struct Told<'a> {
    ask: &'a Ask,
    http: &'a HttpAnswer,
    /// `None`: the body is not a redemption.
    body: Option<wire::Redemption>,
    /// Whether a failure counts only with our key in it: always, but for the first send's answer,
    /// which can be about nothing else.
    key_required: bool,
}

impl<'a> Told<'a> {
    fn new(ask: &'a Ask, call: Call, doubt: Doubt, http: &'a HttpAnswer) -> Self {
        let key_required = (call != Call::Send || doubt == Doubt::InDoubt)
            && injection::holds(Guard::FailureByKey);
        Self { ask, http, body: serde_json::from_slice(&http.body).ok(), key_required }
    }

    /// What the answer does not prove, and why.
    fn malformed(&self, why: &str) -> Step {
        in_doubt(self.ask, self.http, why, wire::Problem::default())
    }

    fn clean(&self, text: &str) -> String {
        clean(&self.ask.code, text, MAX_MESSAGE_CHARS)
    }
}

/// 200, or 201 to a send: the body's state decides.
fn by_state(told: &Told<'_>) -> Step {
    let Some(body) = &told.body else {
        return told.malformed("the body is not a redemption");
    };
    match (body.state.as_deref(), key(told.ask.redemption_id, body)) {
        (_, Key::Another) => told.malformed("the body is about another key"),
        (Some("processing"), _) => look_up(told),
        (Some("failed"), key) => failed(told, body, key),
        (Some("succeeded"), Key::Ours) => succeeded(told, body),
        // A cancellation is never what a send hopes for, so it always needs the key.
        (Some("cancelled"), Key::Ours) => Step::Settle(Verdict::Failed(cancelled())),
        (Some("succeeded" | "cancelled"), Key::Missing) => told.malformed("the body has no key"),
        (Some(_), _) => told.malformed("the body's state is not the contract's"),
        (None, _) => told.malformed("the body has no state"),
    }
}

/// 402: a refusal, unless the body contradicts it.
fn refused(told: &Told<'_>) -> Step {
    let Some(body) = &told.body else {
        return told.malformed("the body is not a redemption");
    };
    match (body.state.as_deref(), key(told.ask.redemption_id, body)) {
        (_, Key::Another) => told.malformed("the body is about another key"),
        (None | Some("failed"), key) => failed(told, body, key),
        (Some(_), _) => told.malformed("the body's state is not a refusal's"),
    }
}

/// 410: the key was cancelled before the redemption arrived.
fn gone(told: &Told<'_>) -> Step {
    let body = told.body.as_ref();
    let state = body.and_then(|body| body.state.as_deref());
    let key = body.map_or(Key::Missing, |body| key(told.ask.redemption_id, body));
    match (state, key) {
        (_, Key::Another) => told.malformed("the body is about another key"),
        (Some(state), _) if state != "cancelled" => {
            told.malformed("the body's state is not a cancellation's")
        }
        (_, Key::Missing) if told.key_required => told.malformed("the body has no key"),
        _ => Step::Settle(Verdict::Failed(cancelled())),
    }
}

/// State `succeeded`, by our key.
fn succeeded(told: &Told<'_>, body: &wire::Redemption) -> Step {
    let ask = told.ask;
    let Some(provider_ref) = body.provider_ref.as_deref().filter(|text| !text.is_empty()) else {
        return told.malformed("the success has no provider_ref");
    };
    let Some(account_ref) = body.account_ref.as_deref() else {
        return told.malformed("the success names no account");
    };
    let Some(amount) = amount(body) else {
        return told.malformed("the success has no amount, or one out of bounds");
    };
    if body.failure.is_some() {
        return told.malformed("the success has a failure too");
    }
    let provider_ref = clean(&ask.code, provider_ref, MAX_NAME_CHARS);
    let mismatch = if account_ref != ask.account_id.as_str() {
        let text = format!("account {account_ref} was credited, not {}", ask.account_id);
        Some((reason::ACCOUNT_MISMATCH, text))
    } else if amount.currency != ask.currency {
        Some((reason::CURRENCY_MISMATCH, format!("{amount} were credited, not {}", ask.currency)))
    } else {
        None
    };
    Step::Settle(match mismatch {
        // Whether another amount than the expected one is good enough is the pool's to say.
        None => Verdict::Succeeded { amount, provider_ref },
        Some((reason, message)) => Verdict::NeedsReview {
            failure: Failure {
                reason: reason.to_owned(),
                message: told.clean(&message),
                code_spent: true,
            },
            amount: Some(amount),
            provider_ref,
        },
    })
}

/// State `failed`, or 402: the failure as it is told.
fn failed(told: &Told<'_>, body: &wire::Redemption, key: Key) -> Step {
    if key == Key::Missing && told.key_required {
        return told.malformed("the refusal has no key, so it may be about another call");
    }
    let Some(failure) = &body.failure else {
        return told.malformed("the refusal has no failure");
    };
    let reason = clean(&told.ask.code, &failure.code, MAX_NAME_CHARS);
    if reason.is_empty() {
        return told.malformed("the failure has no code");
    }
    let message = told.clean(&failure.message);
    Step::Settle(Verdict::Failed(Failure { reason, message, code_spent: failure.code_spent }))
}

/// At work on it.
fn look_up(told: &Told<'_>) -> Step {
    let hinted = told.body.as_ref().and_then(|body| body.poll_after_ms);
    let text = "the provider has the redemption, and its outcome is to be looked up";
    let answer = said(told.ask, told.http, text, problem(told.http));
    Step::LookUp { after: hint(hinted, told.http), answer }
}

/// Whose redemption a body is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Key {
    Ours,
    Another,
    Missing,
}

fn key(ours: RedemptionId, body: &wire::Redemption) -> Key {
    match body.key.as_deref().map(RedemptionId::parse) {
        None => Key::Missing,
        Some(Ok(theirs)) if theirs == ours => Key::Ours,
        Some(_) => Key::Another,
    }
}

/// What was credited, if it can be read and is an amount that can be.
fn amount(body: &wire::Redemption) -> Option<Money> {
    let amount_minor = body.amount_minor?;
    let currency = Currency::parse(body.currency_code.as_deref()?)?;
    (0..=MAX_AMOUNT_MINOR).contains(&amount_minor).then_some(Money { amount_minor, currency })
}

fn cancelled() -> Failure {
    not_spent(reason::CANCELLED, "cancelled at the provider before it was executed".to_owned())
}

fn not_spent(reason: &str, message: String) -> Failure {
    Failure { reason: reason.to_owned(), message, code_spent: false }
}

/// How long the provider asks to wait: the body's own hint, else the header.
fn hint(body_ms: Option<u64>, http: &HttpAnswer) -> Option<Duration> {
    body_ms.map(Duration::from_millis).or(http.retry_after).map(|after| after.min(MAX_AFTER))
}

fn problem(http: &HttpAnswer) -> wire::Problem {
    wire::Problem::read(&http.body)
}

fn in_doubt(ask: &Ask, http: &HttpAnswer, why: &str, problem: wire::Problem) -> Step {
    Step::InDoubt { answer: said(ask, http, why, problem) }
}

/// The answer for people. Only decoded text of the body is quoted, never the body itself: in raw
/// JSON a code may be escaped, and would not be found.
fn said(ask: &Ask, http: &HttpAnswer, what: &str, problem: wire::Problem) -> String {
    let text = format!("HTTP {}, {what}", http.status);
    match problem.message.map(|text| clean(&ask.code, &text, 200)) {
        Some(told) if !told.is_empty() => format!("{text} ({told})"),
        _ => text,
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
