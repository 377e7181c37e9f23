//! What an answer proves, whatever a profile says of it.
//!
//! A profile says what an answer *means*; here is decided what follows from it. *Whose* an answer is: ours, when it
//! tells our key or the task that we know, or its element was chosen by one of them; another's, when it tells a
//! different one; else not told. *Alone*: it came on a connection that had carried no other request, or over HTTP/2.
//!
//! | it means | what it proves |
//! |---|---|
//! | anything, another's | in doubt |
//! | `succeeded` | only whole: the key where the profile takes one, account and currency as asked (told and different: review), an amount |
//! | `failed`, to the first send | it, when ours or alone |
//! | `failed`, to a send that is not the first | it, when ours, inside the window, where the provider answers a key as it did first; else in doubt |
//! | `failed`, to another call | it, when ours, or when alone where the profile takes no key |
//! | `undone` | of `cancel` and `reverse`: as `failed` to another call |
//! | found by the code alone | a success needs our account and a time after the redemption was recorded (an earlier one: review); spent by another counts; that the code is unknown counts as `not_found` |
//! | `not_found` | nothing, unless the op ends doubt, by JSON, alone, asked late enough |
//! | `not_executed`, `unauthorized` | to the first send, when ours or alone: nothing was done; else only that the provider takes no calls now |
//! | `processing`, `duplicate` | to be looked up; a task that is told counts when ours or alone |
//!
//! Where the rule that matched names no status, a success needs 2xx, and what else is definite 2xx, 4xx or 5xx; 205 and
//! 206 are never enough. An op with items needs exactly one that fits for a success. Where several do, nothing is definite.

use std::time::Duration;

use super::{
    Doubt, MAX_AFTER, MAX_NAME_CHARS, MIN_AFTER, not_spent,
    outcome::{Circumstances, Proof, Subject},
};
use crate::{
    domain::{
        hold::HoldCause,
        money::Money,
        redemption::{Dedup, Failure, reason},
    },
    failpoints::{self, Guard},
    provider::{
        json::Field,
        profile::{Answered, Op, OpKind, Profile, Reading, Then, Values, is_partial},
        scrub::{MAX_MESSAGE_CHARS, clean_of},
    },
};

/// Whose an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Ours,
    Another(&'static str),
    NotTold,
}

/// An answer and all that is known beside it.
struct Answer<'a> {
    profile: &'a Profile,
    op: &'a Op,
    reading: &'a Reading,
    subject: &'a Subject,
    circumstances: &'a Circumstances,
    whose: Whose,
}

/// The message of what was cancelled, where the provider says none.
const CANCELLED: &str = "cancelled at the provider before it was executed";

/// The message of what was reversed.
const REVERSED: &str = "reversed at the provider";

/// How long before a redemption was recorded a find by the code may have happened: clocks differ.
const CLOCKS_DIFFER: time::Duration = time::Duration::minutes(1);

/// Says what an answer proves.
pub(in crate::provider) fn prove(
    profile: &Profile,
    op: &Op,
    reading: &Reading,
    subject: &Subject,
    circumstances: &Circumstances,
) -> Proof {
    let whose = whose(profile, op, reading, subject);
    Answer { profile, op, reading, subject, circumstances, whose }.prove()
}

/// Reads the pages of one answer by a profile, and says what they prove.
pub fn judge(
    profile: &Profile,
    kind: OpKind,
    values: &Values,
    subject: &Subject,
    circumstances: &Circumstances,
    (pages, is_whole): (&[Answered<'_>], bool),
) -> Proof {
    let Some(op) = profile.op(kind) else {
        return Proof::InDoubt { answer: format!("the profile has no op.{}", kind.name()) };
    };
    let mut reading = Reading::of(op, values, subject.currency, pages, is_whole);
    if subject.code.is_none() {
        // Nothing could be taken out of it.
        reading.told.message = None;
    }
    prove(profile, op, &reading, subject, circumstances)
}

fn whose(profile: &Profile, op: &Op, reading: &Reading, subject: &Subject) -> Whose {
    let told = &reading.told;
    let by_key = match &told.key {
        Field::Is(key) if profile.identity.key.is_same(&subject.key, key) => Whose::Ours,
        Field::Is(_) => Whose::Another("the key is not the one that was asked with"),
        Field::Wrong(_) => Whose::Another("the key cannot be read"),
        Field::Missing => Whose::NotTold,
    };
    // The answer to a send tells a new one.
    let known = subject.task.as_ref().filter(|_| op.kind != OpKind::Send);
    let by_task = match (&told.task, known) {
        (Field::Is(task), Some(known)) if task == known => Whose::Ours,
        (Field::Is(_), Some(_)) => Whose::Another("the task is not the one that was asked with"),
        (Field::Wrong(_), _) => Whose::Another("the task cannot be read"),
        _ => Whose::NotTold,
    };
    match (by_key, by_task) {
        (another @ Whose::Another(_), _) | (_, another @ Whose::Another(_)) => another,
        (Whose::Ours, _) | (_, Whose::Ours) => Whose::Ours,
        _ if reading.is_ours_by_match => Whose::Ours,
        _ => Whose::NotTold,
    }
}

impl Answer<'_> {
    fn prove(&self) -> Proof {
        if let Whose::Another(why) = self.whose {
            return self.in_doubt(why);
        }
        if let Some(why) = self.unnamed_status() {
            return self.in_doubt(why);
        }
        match &self.reading.then {
            Then::Succeeded => self.succeeded(),
            Then::Failed { spent, reason, account } => {
                self.failed(*spent, reason.as_deref(), *account)
            }
            Then::Undone => self.undone(),
            Then::Review => self.review(),
            Then::Processing => self.processing(),
            Then::NotExecuted => self.not_executed(false),
            Then::Unauthorized => self.not_executed(true),
            Then::Duplicate => Proof::Duplicate { answer: self.text("it has seen the key") },
            Then::NotFound => self.not_found(),
            Then::InDoubt => {
                let why = self.reading.why.as_deref();
                self.in_doubt(why.unwrap_or("which the profile does not have here"))
            }
        }
    }

    /// Why the status lets nothing follow from the answer, if so. Where its rule names none, a success has 2xx, and a
    /// failure may have 4xx and 5xx too. 205 and 206 have no whole body.
    fn unnamed_status(&self) -> Option<&'static str> {
        let status = self.reading.status;
        let is_fit = match &self.reading.then {
            Then::Succeeded => (200..300).contains(&status) && !is_partial(status),
            Then::Failed { .. }
            | Then::Undone
            | Then::NotExecuted
            | Then::Unauthorized
            | Then::NotFound => {
                (200..300).contains(&status) && !is_partial(status) || (400..600).contains(&status)
            }
            Then::Processing | Then::Duplicate | Then::Review | Then::InDoubt => true,
        };
        (!is_fit && !self.reading.names_status)
            .then_some("no rule names this status, and it is none for what the rule says")
    }

    fn succeeded(&self) -> Proof {
        if let Some(doubt) = self.not_about_ours() {
            return doubt;
        }
        let told = &self.reading.told;
        let wrong: Vec<String> = [
            self.needed("account", &told.account),
            self.needed("currency", &told.currency),
            match &told.amount {
                Field::Is(_) => None,
                Field::Missing => Some("amount is missing".to_owned()),
                Field::Wrong(why) => Some(format!("amount {why}")),
            },
            match &told.reference {
                Field::Wrong(why) => Some(format!("ref {why}")),
                _ => None,
            },
            (self.is_by_code_alone() && !matches!(told.account, Field::Is(_)))
                .then(|| "account is missing".to_owned()),
            (self.is_by_code_alone() && !matches!(told.time, Field::Is(_)))
                .then(|| "time is missing".to_owned()),
        ]
        .into_iter()
        .flatten()
        .collect();
        if !wrong.is_empty() {
            return self.in_doubt(&wrong.join("; "));
        }
        let Some(amount) = self.amount() else { return self.in_doubt("amount is missing") };
        if let Some((reason, message)) = self.mismatch(&amount) {
            return self.to_review(reason, &message);
        }
        let country = match &told.country {
            Field::Is(country) => Some(self.clean(country, MAX_NAME_CHARS)),
            _ => None,
        };
        Proof::Succeeded { amount, provider_ref: self.provider_ref(), country }
    }

    /// What of a success is not as it was asked.
    fn mismatch(&self, amount: &Money) -> Option<(&'static str, String)> {
        let (told, subject) = (&self.reading.told, self.subject);
        match &told.account {
            Field::Is(account)
                if *account != subject.account && self.op.kind != OpKind::Inquire =>
            {
                let text = format!("account {account} was credited, not {}", subject.account);
                return Some((reason::ACCOUNT_MISMATCH, text));
            }
            _ => {}
        }
        if amount.currency != subject.currency && self.op.kind != OpKind::Inquire {
            let text = format!("{amount} were credited, not {}", subject.currency);
            return Some((reason::CURRENCY_MISMATCH, text));
        }
        match &told.time {
            Field::Is(time)
                if self.is_by_code_alone() && *time < subject.recorded_at - CLOCKS_DIFFER =>
            {
                let text = "the code was redeemed before this redemption was recorded".to_owned();
                Some((reason::REDEEMED_BEFORE, text))
            }
            _ => None,
        }
    }

    fn failed(&self, spent: bool, reason: Option<&str>, hold: Option<HoldCause>) -> Proof {
        let reason = match (reason, &self.reading.told.failure) {
            (Some(reason), _) => reason.to_owned(),
            (None, Field::Is(told)) => self.clean(told, MAX_NAME_CHARS),
            (None, Field::Missing) => return self.in_doubt("failure is missing"),
            (None, Field::Wrong(why)) => return self.in_doubt(&format!("failure {why}")),
        };
        if reason.is_empty() {
            return self.in_doubt("failure is empty");
        }
        if self.is_ambiguous() {
            return self.in_doubt("not exactly one of its elements fits");
        }
        let is_ours = self.whose == Whose::Ours || !failpoints::holds(Guard::FailureByKey);
        if self.op.kind == OpKind::Send {
            match self.circumstances.doubt {
                Doubt::FirstSend if !is_ours && !self.is_alone() => {
                    return self.unproven("refused");
                }
                Doubt::FirstSend => {}
                Doubt::InDoubt => {
                    let replays = self.profile.identity.dedup == Dedup::Replay
                        && self.circumstances.in_window;
                    let counts = replays && is_ours;
                    if !counts && failpoints::holds(Guard::RefusedAgainIsNoProof) {
                        return self
                            .in_doubt("refused, which the send before may be the reason for");
                    }
                }
            }
        } else if let Some(doubt) = self.not_told_to_a_question(is_ours) {
            return doubt;
        } else if self.is_by_code_alone() && !spent {
            return self.not_found();
        }
        let is_anothers_account = match &self.reading.told.account {
            Field::Is(told) => *told != self.subject.account && self.op.kind != OpKind::Inquire,
            _ => false,
        };
        if is_anothers_account && !is_ours && !self.is_by_code_alone() {
            return self.in_doubt("the account is not the one that was asked with");
        }
        let message = match self.message() {
            none if none.is_empty() && reason == reason::CANCELLED => CANCELLED.to_owned(),
            message => message,
        };
        // The codes of the built-in contract that begin with ACCOUNT_ say it by themselves.
        let hold = hold.or_else(|| HoldCause::of_failure(&reason));
        Proof::Failed { failure: Failure { reason, message, code_spent: spent }, hold }
    }

    fn undone(&self) -> Proof {
        if self.is_ambiguous() {
            return self.in_doubt("not exactly one of its elements fits");
        }
        if let Some(doubt) = self.not_told_to_a_question(self.whose == Whose::Ours) {
            return doubt;
        }
        let (reason, message) = match self.op.kind {
            OpKind::Reverse => (reason::REVERSED, REVERSED),
            _ => (reason::CANCELLED, CANCELLED),
        };
        Proof::Undone(not_spent(reason, message.to_owned()))
    }

    fn review(&self) -> Proof {
        if let Some(doubt) = self.not_about_ours() {
            return doubt;
        }
        let named = match &self.reading.told.failure {
            Field::Is(told) => self.clean(told, MAX_NAME_CHARS),
            _ => String::new(),
        };
        let named = if named.is_empty() { reason::UNRESOLVED.to_owned() } else { named };
        self.to_review(&named, &self.message())
    }

    fn to_review(&self, reason: &str, message: &str) -> Proof {
        Proof::Review {
            failure: Failure {
                reason: reason.to_owned(),
                message: self.clean(message, MAX_MESSAGE_CHARS),
                code_spent: true,
            },
            amount: self.amount(),
            provider_ref: self.provider_ref(),
        }
    }

    fn processing(&self) -> Proof {
        let task = match &self.reading.told.task {
            Field::Is(task) => Some(task.clone()),
            _ => None,
        };
        if task.is_some() && self.whose != Whose::Ours && !self.is_alone() {
            return self.unproven("at work");
        }
        // What the code alone found may be another's work.
        let is_backed = !self.is_by_code_alone() || self.is_backed();
        // It is kept in clear, as it is asked with.
        let is_keepable = |task: &String| self.clean(task, usize::MAX) == *task;
        let answer = match &task {
            Some(task) if !is_keepable(task) => {
                "at work on it, by a task whose id holds the card's code or a credential: it is not kept"
            }
            _ => "the provider has it, and its outcome is to be looked up",
        };
        Proof::Processing {
            answer: self.text(answer),
            task: task.filter(|_| is_backed && !self.is_ambiguous()).filter(is_keepable),
            after: self.after(),
        }
    }

    /// Whether our account is told, and a time since the redemption was recorded.
    fn is_backed(&self) -> bool {
        let told = &self.reading.told;
        let is_ours =
            matches!(&told.account, Field::Is(account) if *account == self.subject.account);
        let earliest = self.subject.recorded_at - CLOCKS_DIFFER;
        is_ours && matches!(&told.time, Field::Is(time) if *time >= earliest)
    }

    fn not_executed(&self, unauthorized: bool) -> Proof {
        let is_first = self.op.kind == OpKind::Send && self.circumstances.doubt == Doubt::FirstSend;
        let what = if unauthorized {
            "the provider refused who asks, and executed nothing"
        } else {
            "the provider is busy and executed nothing"
        };
        let (after, answer) = (self.after(), self.text(what));
        if is_first && (self.whose == Whose::Ours || self.is_alone()) {
            Proof::NotExecuted { after, answer, unauthorized }
        } else {
            Proof::Busy { after, answer, unauthorized }
        }
    }

    fn not_found(&self) -> Proof {
        let (times, circumstances) = (&self.profile.times, self.circumstances);
        let since_last_send = circumstances
            .since_last_send
            .or_else(|| circumstances.since_recorded.checked_sub(times.send_window));
        let needed = times.max_processing + times.visibility;
        let is_late = since_last_send.is_some_and(|since| since > needed);
        let is_proof = (self.op.ends_doubt || !failpoints::holds(Guard::NotFoundIsNoProof))
            && matches!(self.op.kind, OpKind::LookUp | OpKind::Find)
            && self.reading.is_json
            && self.reading.found != Some(true)
            && !self.is_ambiguous()
            && (is_late || !failpoints::holds(Guard::NotFoundIsLate))
            && (self.is_alone() || self.whose == Whose::Ours);
        if is_proof {
            let message =
                self.text("the provider does not have it, after all the time that it could take");
            return Proof::Failed { failure: not_spent(reason::NOT_EXECUTED, message), hold: None };
        }
        if self.op.kind == OpKind::Send {
            return self.in_doubt("it does not know what it was sent");
        }
        Proof::NotFound { answer: self.text("it is not there") }
    }

    /// Why nothing definite can be about ours, if so.
    fn not_about_ours(&self) -> Option<Proof> {
        if self.whose != Whose::Ours {
            if self.op.take.has("key") {
                return Some(self.unproven("key is missing"));
            }
            if !self.is_alone() {
                return Some(self.unproven("whose it is is not told"));
            }
        }
        let needs_one = self.op.has_items() && self.op.kind != OpKind::List;
        (needs_one && self.reading.found != Some(true))
            .then(|| self.in_doubt("not exactly one of its elements fits"))
    }

    /// Why a failure that is told to a question does not count, if so.
    fn not_told_to_a_question(&self, is_ours: bool) -> Option<Proof> {
        if is_ours {
            None
        } else if self.op.take.has("key") {
            Some(self.in_doubt("key is missing"))
        } else if !self.is_alone() {
            Some(self.in_doubt("it may be to another request"))
        } else {
            None
        }
    }

    fn is_alone(&self) -> bool {
        self.circumstances.is_alone || !failpoints::holds(Guard::ReusedIsNoProof)
    }

    /// Several elements fit, or there is no array.
    fn is_ambiguous(&self) -> bool {
        self.op.has_items() && self.reading.found.is_none()
    }

    /// It was found by the code, and tells neither our key nor the task.
    fn is_by_code_alone(&self) -> bool {
        self.op.kind == OpKind::Find
            && self.whose != Whose::Ours
            && (self.op.asks_by_code() || !(self.op.asks_by_key() || self.op.asks_by_task()))
            && failpoints::holds(Guard::CodesFindOthers)
    }

    /// What is wrong with a field that a success needs where the profile takes it.
    fn needed<T>(&self, name: &str, field: &Field<T>) -> Option<String> {
        match field {
            Field::Is(_) => None,
            Field::Wrong(why) => Some(format!("{name} {why}")),
            Field::Missing => self.op.take.has(name).then(|| format!("{name} is missing")),
        }
    }

    fn amount(&self) -> Option<Money> {
        let told = &self.reading.told;
        let currency = match &told.currency {
            Field::Is(currency) => *currency,
            _ => self.subject.currency,
        };
        match told.amount {
            Field::Is(amount_minor) => Some(Money { amount_minor, currency }),
            _ => None,
        }
    }

    fn provider_ref(&self) -> String {
        let told = &self.reading.told;
        let told = [&told.reference, &told.task].into_iter().find_map(|field| match field {
            Field::Is(text) if !text.is_empty() => Some(text.as_str()),
            _ => None,
        });
        let text = told.or(self.subject.task.as_deref()).unwrap_or(&self.subject.key);
        self.clean(text, MAX_NAME_CHARS)
    }

    fn after(&self) -> Option<Duration> {
        self.reading.told.retry_after.map(|after| after.clamp(MIN_AFTER, MAX_AFTER))
    }

    fn message(&self) -> String {
        let message = self.reading.told.message.as_deref().unwrap_or_default();
        self.clean(message, MAX_MESSAGE_CHARS)
    }

    fn clean(&self, text: &str, max_chars: usize) -> String {
        clean_of(self.subject.code.as_ref(), &self.subject.secrets.0, text, max_chars)
    }

    /// The answer for people.
    fn text(&self, what: &str) -> String {
        let text = format!("HTTP {}, {}", self.reading.status, self.clean(what, 200));
        match self.reading.told.message.as_deref().map(|told| self.clean(told, 200)) {
            Some(told) if !told.is_empty() => format!("{text} ({told})"),
            _ => text,
        }
    }

    fn in_doubt(&self, why: &str) -> Proof {
        Proof::InDoubt { answer: self.text(&format!("but {why}")) }
    }

    /// To the first send: it is looked up at once.
    fn unproven(&self, why: &str) -> Proof {
        let is_first = self.op.kind == OpKind::Send && self.circumstances.doubt == Doubt::FirstSend;
        if is_first {
            let text = format!("{why}, but it may be about another redemption");
            Proof::Unproven { answer: self.text(&text) }
        } else {
            self.in_doubt(why)
        }
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod sequences;
#[cfg(test)]
mod tests;
