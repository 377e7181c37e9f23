//! The table of what an answer of the provider proves.
//!
//! Definite only where it is proven; anything else is in doubt, and doubt is sticky. A profile says what an answer
//! means, [`proof`](self::prove) what follows from that, whatever the profile says; nothing else in the program reads
//! an answer. Here is what follows where no answer came, and the step that each proof calls for:
//!
//! | what happened, or is proven | step |
//! |---|---|
//! | never sent | send again, in the end `FAILED`; in doubt, or of another call: still in doubt |
//! | a value is missing, so that nothing can be sent | `FAILED`; in doubt, or of another call: still in doubt |
//! | lost | in doubt |
//! | succeeded, failed, undone, to be reviewed | settle |
//! | at work, or a duplicate | look up |
//! | nothing was executed, by the first send's own answer | send again |
//! | the provider takes no calls now | busy |
//! | not found | not found, which proves nothing; to another call than a look-up: in doubt |
//! | the first send's answer that may be to another request | unproven: looked up at once |

use std::{collections::BTreeMap, time::Duration};

use super::{
    Answer, HttpAnswer,
    profile::{OpKind, Profile, Unusable, Values},
    scrub::{MAX_MESSAGE_CHARS, clean},
};
use crate::{
    domain::redemption::{Ask, Failure, Step, Verdict, reason},
    failpoints::{self, Guard},
};

mod audit;
mod condition;
mod inquiry;
mod outcome;
mod proof;

pub use audit::of_line;
pub(in crate::provider) use audit::{looked_up, page};
pub(in crate::provider) use condition::condition;
pub use inquiry::Inquired;
pub(in crate::provider) use inquiry::inquired;
pub use outcome::{Circumstances, Proof, Secrets, Subject};
pub use proof::judge;
pub(in crate::provider) use proof::prove;

/// The longest failure code, and the longest name of the provider's own, in characters.
const MAX_NAME_CHARS: usize = 128;
/// The shortest wait that an answer may ask for: one that says 0 would be asked without end.
pub const MIN_AFTER: Duration = Duration::from_millis(100);
/// The longest.
const MAX_AFTER: Duration = Duration::from_secs(3600);

/// What the answer is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// A request to redeem.
    Send,
    /// A look-up by the key.
    LookUp,
    /// A look-up by a search.
    Find,
    /// A cancellation by the key.
    Cancel,
    /// A reversal.
    Reverse,
}

impl Call {
    /// The name of its op.
    pub fn name(self) -> &'static str {
        self.op().name()
    }

    pub(super) fn op(self) -> OpKind {
        match self {
            Self::Send => OpKind::Send,
            Self::LookUp => OpKind::LookUp,
            Self::Find => OpKind::Find,
            Self::Cancel => OpKind::Cancel,
            Self::Reverse => OpKind::Reverse,
        }
    }
}

/// Whether an earlier call may have been executed without our knowing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// No: every call before this one is known not to have been executed, or to be under way.
    FirstSend,
    /// Yes.
    InDoubt,
}

/// Says what the answer to a call calls for, by a profile. `secrets` are those that it names.
pub fn classify(
    profile: &Profile,
    secrets: &BTreeMap<String, String>,
    ask: &Ask,
    call: Call,
    doubt: Doubt,
    answer: &Answer,
) -> Step {
    match proven(profile, secrets, ask, call, doubt, answer) {
        Ok(proof) => step(call, answer, proof),
        Err(step) => step,
    }
}

/// What the answer to a call proves. The error is the step where there was no answer.
pub(in crate::provider) fn proven(
    profile: &Profile,
    secrets: &BTreeMap<String, String>,
    ask: &Ask,
    call: Call,
    doubt: Doubt,
    answer: &Answer,
) -> Result<Proof, Step> {
    let (pages, is_whole) = match answer {
        Answer::NeverSent(why) => {
            return Err(never_sent(call, doubt, &clean(&ask.code, why, MAX_MESSAGE_CHARS)));
        }
        Answer::Unsendable(why) => return Err(unsendable(call, doubt, why)),
        Answer::Lost(why) if !failpoints::holds(Guard::LostIsNoProof) => {
            return Err(never_sent(call, doubt, why));
        }
        Answer::Lost(why) => {
            return Err(no_answer(clean(&ask.code, why, MAX_MESSAGE_CHARS)));
        }
        Answer::Http(http) => (std::slice::from_ref(http), true),
        Answer::Pages { pages, is_whole } => (&pages[..], *is_whole),
    };
    let mut values = Values::of_ask(profile.identity.key, ask);
    values.secrets.clone_from(secrets);
    let hidden = secrets.values().chain(ask.account.credentials.values());
    let subject = Subject {
        key: profile.identity.key.of(ask.redemption_id),
        task: ask.known.task.clone(),
        account: ask.account_id.as_str().to_owned(),
        currency: ask.currency,
        code: Some(ask.code.clone()),
        recorded_at: ask.known.recorded_at,
        secrets: Secrets(hidden.cloned().collect()),
    };
    let circumstances = Circumstances {
        doubt: if call == Call::Send { doubt } else { Doubt::InDoubt },
        in_window: ask.known.age < profile.identity.window,
        is_alone: pages.iter().all(|page| page.first_on_connection),
        since_recorded: ask.known.age,
        since_last_send: ask.known.since_sent_again,
    };
    let answered: Vec<_> = pages.iter().map(HttpAnswer::as_answered).collect();
    Ok(judge(profile, call.op(), &values, &subject, &circumstances, (&answered, is_whole)))
}

/// The step that a proof calls for.
pub(in crate::provider) fn step(call: Call, answer: &Answer, proof: Proof) -> Step {
    match proof {
        Proof::Succeeded { amount, provider_ref, country: _ } => {
            // Whether another amount than the expected one is good enough is the pool's to say.
            Step::Settle(Verdict::Succeeded { amount, provider_ref })
        }
        Proof::Failed { failure, hold } => Step::Settle(Verdict::Failed { failure, hold }),
        Proof::Undone(failure) => Step::Settle(Verdict::failed(failure)),
        Proof::Review { failure, amount, provider_ref } => {
            Step::Settle(Verdict::NeedsReview { failure, amount, provider_ref })
        }
        Proof::Processing { task, after, answer } => Step::LookUp { task, after, answer },
        Proof::Duplicate { answer } => Step::LookUp { task: None, after: None, answer },
        Proof::NotExecuted { after, answer, unauthorized: _ } => {
            Step::SendAgain { failure: not_spent(reason::PROVIDER_BUSY, answer), after }
        }
        Proof::Busy { after, answer, unauthorized: _ } => Step::Busy { after, answer },
        Proof::NotFound { .. } if matches!(call, Call::LookUp | Call::Find) => Step::NotFound,
        Proof::Unproven { answer } => Step::Unproven { answer },
        Proof::NotFound { answer: text } | Proof::InDoubt { answer: text } => {
            Step::InDoubt { answer: text, is_answer: !answer.is_own_failure() }
        }
    }
}

/// No whole answer came: asked again there may be one.
fn no_answer(answer: String) -> Step {
    Step::InDoubt { answer, is_answer: false }
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
        _ => no_answer(format!("the provider could not be reached: {why}")),
    }
}

/// Nothing could be sent, and nothing will: the redemption lacks a value.
fn unsendable(call: Call, doubt: Doubt, why: &Unusable) -> Step {
    let reason = match why {
        Unusable::Missing(_) => reason::VALUE_MISSING,
        Unusable::Unfit(..) | Unusable::NoOp(_) => reason::VALUE_UNUSABLE,
    };
    match (call, doubt) {
        (Call::Send, Doubt::FirstSend) => {
            Step::Settle(Verdict::failed(not_spent(reason, why.to_string())))
        }
        // It will not have the value the next time either.
        _ => Step::InDoubt { answer: why.to_string(), is_answer: true },
    }
}

fn not_spent(reason: &str, message: String) -> Failure {
    Failure { reason: reason.to_owned(), message, code_spent: false }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
