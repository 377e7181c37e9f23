//! The table of what an answer of the provider proves.
//!
//! Definite only where it is proven; anything else is in doubt, and doubt is sticky. Every row is an
//! arm of [`classify`] or of [`by_state`]; nothing else in the program reads an answer.
//!
//! An answer *is to this call* when its body has our key, or when it is the first send's and its
//! connection had carried no other request. Any other could be to an earlier request, or to none: a
//! server may speak unasked on a connection that is used again.
//!
//! | answer | first send, to this call | first send, not known to be | once in doubt, or no send |
//! |---|---|---|---|
//! | never sent | send again, in the end `FAILED` | (nothing was written) | still in doubt |
//! | 200/201, `succeeded`, as asked, our key | `SUCCEEDED` | in doubt | as with our key |
//! | 200/201, another account or currency, our key | `NEEDS_REVIEW` | in doubt | as with our key |
//! | 402, or state `failed`, whole | `FAILED` | in doubt, looked up at once | `FAILED` only with our key |
//! | 202, or state `processing` | look up | look up | look up |
//! | 409 in progress; a cancel that came too late | look up | look up | look up |
//! | 410 to a send, whole | `FAILED`, code not spent | in doubt, looked up at once | `FAILED` only with our key |
//! | state `cancelled`, our key | `FAILED`, code not spent | in doubt | as with our key |
//! | 404 to a look-up | – | – | not found, which proves nothing |
//! | 429/503 with `"executed": false` | send again | in doubt, busy | busy |
//! | another key; 422; lost; other statuses; malformed | in doubt | in doubt | in doubt |
//!
//! *Whole*: a refusal has a `failure` with a `code` and `code_spent`. A 410 has our key or the state
//! `cancelled` (a page of HTML has neither). A field that decides and is missing, of another type, out
//! of bounds or given twice with different values makes the answer malformed. Any other field proves
//! nothing, and is passed over when it is wrong: `poll_after_ms`, `balance_minor`, a failure's `message`.

use std::time::Duration;

use super::{
    Answer, HttpAnswer,
    json::{Field, all_wrong},
    scrub::{MAX_MESSAGE_CHARS, clean},
    wire,
};
use crate::{
    domain::{
        id::RedemptionId,
        money::Money,
        redemption::{Ask, Failure, Step, Verdict, reason},
    },
    failpoints::{self, Guard},
};

/// The longest failure code, and the longest name of the provider's own, in characters.
const MAX_NAME_CHARS: usize = 128;
/// The shortest wait that an answer may ask for: one that says 0 would be asked without end.
pub const MIN_AFTER: Duration = Duration::from_millis(100);
/// The longest.
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
        Answer::Lost(why) if !failpoints::holds(Guard::LostIsNoProof) => {
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
        // what became of those bytes. So it stays open until the key itself is looked up.
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
            failure: not_spent(
                reason::PROVIDER_UNREACHABLE,
                format!("the provider could not be reached: {why}"),
            ),
            after: None,
        },
        _ => Step::InDoubt { answer: format!("the provider could not be reached: {why}") },
    }
}

/// Not executed, says the provider. Where that is to the first send it settles it; once in doubt it
/// speaks only of this call, not of the ones before.
fn busy(ask: &Ask, call: Call, doubt: Doubt, http: &HttpAnswer) -> Step {
    let problem = problem(http);
    let after = hint(problem.retry_after, http);
    let key = key(ask.redemption_id, &problem.key);
    let answer = describe(ask, http, "the provider is busy and executed nothing", problem);
    if !is_to_this_call(call, doubt, http, &key) || doubt == Doubt::InDoubt || call != Call::Send {
        return Step::Busy { after, answer };
    }
    Step::SendAgain { failure: not_spent(reason::PROVIDER_BUSY, answer), after }
}

/// Whether an answer can be to no other call. It has our key, or it is the first send's, on a connection
/// that had carried no other request.
fn is_to_this_call(call: Call, doubt: Doubt, http: &HttpAnswer, key: &Key) -> bool {
    let is_first = call == Call::Send && doubt == Doubt::FirstSend;
    let is_alone = http.first_on_connection || !failpoints::holds(Guard::ReusedIsNoProof);
    match key {
        Key::Ours => true,
        Key::Another | Key::Wrong(_) => false,
        Key::Missing => is_first && is_alone || !failpoints::holds(Guard::FailureByKey),
    }
}

/// An answer that should be a redemption, and what it is to.
struct Told<'a> {
    ask: &'a Ask,
    call: Call,
    doubt: Doubt,
    http: &'a HttpAnswer,
    /// The error says why it is no JSON object.
    body: Result<wire::Redemption, &'static str>,
}

impl<'a> Told<'a> {
    fn new(ask: &'a Ask, call: Call, doubt: Doubt, http: &'a HttpAnswer) -> Self {
        Self { ask, call, doubt, http, body: wire::Redemption::read(&http.body) }
    }

    /// What the answer does not prove, and why.
    fn malformed(&self, why: &str) -> Step {
        Step::InDoubt { answer: format!("HTTP {}, but {why}", self.http.status) }
    }

    /// The first send's answer, which names nobody and may be to another request.
    fn unproven(&self, what: &str) -> Step {
        let answer = format!(
            "HTTP {}, {what}, but key is missing, so it may be about another redemption",
            self.http.status
        );
        match (self.call, self.doubt) {
            (Call::Send, Doubt::FirstSend) => Step::Unproven { answer },
            _ => Step::InDoubt { answer },
        }
    }

    fn is_to_this_call(&self, key: &Key) -> bool {
        is_to_this_call(self.call, self.doubt, self.http, key)
    }

    fn key(&self, body: &wire::Redemption) -> Key {
        key(self.ask.redemption_id, &body.key)
    }

    fn clean(&self, text: &str) -> String {
        clean(&self.ask.code, text, MAX_MESSAGE_CHARS)
    }
}

/// The description of a state that is not the contract's.
const NO_STATE: &str = "state is not one of processing, succeeded, failed, cancelled";

/// 200, or 201 to a send: the body's state decides.
fn by_state(told: &Told<'_>) -> Step {
    let body = match &told.body {
        Ok(body) => body,
        Err(why) => return told.malformed(why),
    };
    let key = told.key(body);
    if let Some(why) = key.is_wrong() {
        return told.malformed(why);
    }
    match body.state.clone().needed("state").as_deref() {
        Ok("processing") => look_up(told),
        Ok("failed") => failed(told, body, &key),
        Ok("succeeded") => succeeded(told, body, &key),
        // A cancellation is never what a send asks for, so it always needs the key.
        Ok("cancelled") if key == Key::Ours => Step::Settle(Verdict::Failed(cancelled())),
        Ok("cancelled") => told.malformed("key is missing"),
        Ok(_) => told.malformed(NO_STATE),
        Err(why) => told.malformed(why),
    }
}

/// 402: a refusal, unless the body contradicts it.
fn refused(told: &Told<'_>) -> Step {
    let body = match &told.body {
        Ok(body) => body,
        Err(why) => return told.malformed(why),
    };
    let key = told.key(body);
    if let Some(why) = key.is_wrong() {
        return told.malformed(why);
    }
    match body.state.clone().optional("state").as_ref().map(Option::as_deref) {
        Ok(None | Some("failed")) => failed(told, body, &key),
        Ok(Some(_)) => told.malformed("state is not a refusal's, which is failed"),
        Err(why) => told.malformed(why),
    }
}

/// 410: the key was cancelled before the redemption arrived.
fn gone(told: &Told<'_>) -> Step {
    let body = match &told.body {
        Ok(body) => body,
        Err(why) => return told.malformed(why),
    };
    let key = told.key(body);
    if let Some(why) = key.is_wrong() {
        return told.malformed(why);
    }
    match body.state.clone().optional("state").as_ref().map(Option::as_deref) {
        Ok(Some("cancelled")) => {}
        Ok(None) if key == Key::Ours => {}
        // Anybody between may say 410.
        Ok(None) => return told.malformed("key and state are missing"),
        Ok(Some(_)) => return told.malformed("state is not a cancellation's, which is cancelled"),
        Err(why) => return told.malformed(why),
    }
    if !told.is_to_this_call(&key) {
        return told.unproven("cancelled");
    }
    Step::Settle(Verdict::Failed(cancelled()))
}

/// State `succeeded`, which needs our key.
fn succeeded(told: &Told<'_>, body: &wire::Redemption, key: &Key) -> Step {
    let ask = told.ask;
    let whole = match whole_success(body, key) {
        Ok(whole) => whole,
        Err(why) => return told.malformed(&why),
    };
    let WholeSuccess { provider_ref, account_ref, amount } = whole;
    let provider_ref = clean(&ask.code, &provider_ref, MAX_NAME_CHARS);
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

/// What a success must say, but for its key.
struct WholeSuccess {
    provider_ref: String,
    account_ref: String,
    amount: Money,
}

/// Reads a success, or names every field that is wrong.
fn whole_success(body: &wire::Redemption, key: &Key) -> Result<WholeSuccess, String> {
    let keyless = (*key == Key::Missing).then(|| "key is missing".to_owned());
    let provider_ref = body.provider_ref.clone().filled().needed("provider_ref");
    let account_ref = body.account_ref.clone().needed("account_ref");
    let amount_minor = body.amount_minor.clone().needed("amount_minor");
    let amount_minor = amount_minor.and_then(|minor| wire::in_bounds("amount_minor", minor, 0));
    let currency = body.currency_code.clone().needed("currency_code");
    let contradiction = (!matches!(body.failure, Field::Missing))
        .then(|| "failure is there although state is succeeded".to_owned());
    match (keyless, provider_ref, account_ref, amount_minor, currency, contradiction) {
        (None, Ok(provider_ref), Ok(account_ref), Ok(amount_minor), Ok(currency), None) => {
            let amount = Money { amount_minor, currency };
            Ok(WholeSuccess { provider_ref, account_ref, amount })
        }
        (a, b, c, d, e, f) => Err(all_wrong([a, b.err(), c.err(), d.err(), e.err(), f])),
    }
}

/// State `failed`, or 402: the failure as it is told.
fn failed(told: &Told<'_>, body: &wire::Redemption, key: &Key) -> Step {
    let failure = match &body.failure {
        Field::Is(failure) => failure,
        Field::Missing => return told.malformed("failure is missing"),
        Field::Wrong(why) => return told.malformed(&format!("failure {why}")),
    };
    // What is left of it when nobody's code, and no control character, is kept.
    let code = failure
        .code
        .clone()
        .and_then(|code| Field::Is(clean(&told.ask.code, &code, MAX_NAME_CHARS)).filled());
    let code = code.needed("failure.code");
    let code_spent = failure.code_spent.clone().needed("failure.code_spent");
    let (reason, code_spent) = match (code, code_spent) {
        (Ok(code), Ok(code_spent)) => (code, code_spent),
        (a, b) => return told.malformed(&all_wrong([a.err(), b.err()])),
    };
    if !told.is_to_this_call(key) {
        return told.unproven("refused");
    }
    let message = told.clean(&failure.message);
    Step::Settle(Verdict::Failed(Failure { reason, message, code_spent }))
}

/// At work on it.
fn look_up(told: &Told<'_>) -> Step {
    let hinted = told.body.as_ref().ok().and_then(|body| body.poll_after);
    let text = "the provider has the redemption, and its outcome is to be looked up";
    let answer = describe(told.ask, told.http, text, problem(told.http));
    Step::LookUp { after: hint(hinted, told.http), answer }
}

/// Whose redemption a body is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Ours,
    Another,
    Missing,
    /// It cannot be read: why.
    Wrong(&'static str),
}

impl Key {
    /// Why the body is not about our redemption, where it is about any.
    fn is_wrong(self) -> Option<&'static str> {
        match self {
            Self::Ours | Self::Missing => None,
            Self::Another => Some("key is not the one that was asked with"),
            Self::Wrong(why) => Some(why),
        }
    }
}

fn key(ours: RedemptionId, told: &Field<String>) -> Key {
    match told {
        Field::Missing => Key::Missing,
        Field::Is(key) if RedemptionId::parse(key) == Ok(ours) => Key::Ours,
        Field::Is(_) => Key::Another,
        Field::Wrong(_) => Key::Wrong("key is not a text, or is given twice with different values"),
    }
}

fn cancelled() -> Failure {
    not_spent(reason::CANCELLED, "cancelled at the provider before it was executed".to_owned())
}

fn not_spent(reason: &str, message: String) -> Failure {
    Failure { reason: reason.to_owned(), message, code_spent: false }
}

/// How long the provider asks to wait: the body's own hint, else the header. At least a short
/// pause, and at most a time after which it is not forgotten.
pub(super) fn hint(body: Option<Duration>, http: &HttpAnswer) -> Option<Duration> {
    body.or(http.retry_after).map(|after| after.clamp(MIN_AFTER, MAX_AFTER))
}

fn problem(http: &HttpAnswer) -> wire::Problem {
    wire::Problem::read(&http.body)
}

fn in_doubt(ask: &Ask, http: &HttpAnswer, why: &str, problem: wire::Problem) -> Step {
    Step::InDoubt { answer: describe(ask, http, why, problem) }
}

/// The answer for people. Only decoded text of the body is quoted, never the body itself: in raw
/// JSON a code may be escaped, and would not be found.
fn describe(ask: &Ask, http: &HttpAnswer, what: &str, problem: wire::Problem) -> String {
    let text = format!("HTTP {}, {what}", http.status);
    match problem.message.map(|text| clean(&ask.code, &text, 200)) {
        Some(told) if !told.is_empty() => format!("{text} ({told})"),
        _ => text,
    }
}

mod proof;

pub(in crate::provider) use proof::prove;
pub use proof::{Circumstances, Proof, Secrets, Subject, judge};

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
