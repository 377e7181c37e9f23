//! Calls about a redemption that is settled, for its reversal. Its code is wiped: nothing can name it.

use std::{slice, time::Duration};

use super::{Means, OpKind, Provider, Values};
use crate::{
    domain::redemption::{Past, ReversalAnswer},
    provider::{
        Answer, Call, Doubt, HttpAnswer,
        classify::{Circumstances, Proof, Secrets, Subject, judge},
        scrub::{MAX_MESSAGE_CHARS, clean_of},
    },
};

impl Provider {
    /// The question what became of a redemption that is settled, if one can be asked.
    pub fn question_of_past(&self, has_task: bool) -> Option<Call> {
        match self.0.profile.question_of_past(has_task)? {
            OpKind::LookUp => Some(Call::LookUp),
            _ => Some(Call::Find),
        }
    }

    /// Makes a call about a redemption that is settled, and says what its answer tells of the credit. A call that the
    /// provider refused for its token is made once more with a new one.
    pub async fn ask_past(&self, call: Call, past: &Past) -> ReversalAnswer {
        let means = match self.means().await {
            Ok(means) => means,
            Err(why) => {
                return told(call, &Means::default().hidden(past), Err(Nothing::NeverSent(why)));
            }
        };
        let proof = self.past_proof(call, past, &means).await;
        let is_refused = matches!(
            &proof,
            Ok(Proof::Busy { unauthorized: true, .. }
                | Proof::NotExecuted { unauthorized: true, .. })
        );
        if is_refused && let Some(new) = self.with_new_token(&means).await {
            let proof = self.past_proof(call, past, &new).await;
            return told(call, &new.hidden(past), proof);
        }
        told(call, &means.hidden(past), proof)
    }

    async fn past_proof(&self, call: Call, past: &Past, means: &Means) -> Result<Proof, Nothing> {
        let profile = &self.0.profile;
        let values = means.with(Values::of_past(profile.identity.key, past));
        let judged_by = values.clone();
        let answer = self.call_by(call, Doubt::InDoubt, past.redemption_id, Box::new(values)).await;
        let (pages, is_whole) = match &answer {
            Answer::NeverSent(why) => return Err(Nothing::NeverSent(why.clone())),
            Answer::Unsendable(why) => return Err(Nothing::NeverSent(why.to_string())),
            Answer::Lost(why) => return Err(Nothing::Lost(why.clone())),
            Answer::Http(http) => (slice::from_ref(http), true),
            Answer::Pages { pages, is_whole } => (&pages[..], *is_whole),
        };
        let subject = Subject {
            key: profile.identity.key.of(past.redemption_id),
            task: past.task.clone(),
            account: past.account_id.as_str().to_owned(),
            currency: past.amount.currency,
            code: None,
            recorded_at: past.recorded_at,
            secrets: means.hidden(past),
        };
        let circumstances = Circumstances {
            doubt: Doubt::InDoubt,
            in_window: false,
            is_alone: pages.iter().all(|page| page.first_on_connection),
            // That it is not found proves nothing of a success: the provider may not list what is old.
            since_recorded: Duration::ZERO,
            since_last_send: None,
        };
        if answer.is_own_failure() {
            let status = pages.last().map_or(0, |page| page.status);
            return Err(Nothing::Lost(format!("HTTP {status}")));
        }
        let answered: Vec<_> = pages.iter().map(HttpAnswer::as_answered).collect();
        let kind = call.op();
        Ok(judge(profile, kind, &judged_by, &subject, &circumstances, (&answered, is_whole)))
    }
}

impl Means {
    /// What is never kept of an answer.
    fn hidden(&self, past: &Past) -> Secrets {
        let secrets = self.secrets.values().chain(&self.token);
        Secrets(secrets.chain(past.account.credentials.values()).cloned().collect())
    }
}

fn told(call: Call, hidden: &Secrets, proof: Result<Proof, Nothing>) -> ReversalAnswer {
    let clean = |text: &str| clean_of(None, &hidden.0, text, MAX_MESSAGE_CHARS);
    match proof {
        Err(Nothing::NeverSent(why)) => ReversalAnswer::NeverSent(clean(&why)),
        Err(Nothing::Lost(why)) => ReversalAnswer::Nothing(clean(&why)),
        Ok(Proof::Undone(_)) => ReversalAnswer::Undone("the provider has undone it".to_owned()),
        Ok(Proof::Failed { .. }) => match call {
            // What a reversal is answered may be about the reversal.
            Call::Reverse => ReversalAnswer::Review(
                "the provider says that it failed: the reversal, or what was to be reversed".to_owned(),
            ),
            _ => ReversalAnswer::Undone("the provider has it as no success any more".to_owned()),
        },
        Ok(Proof::Succeeded { amount, .. }) => {
            ReversalAnswer::Credited(format!("the provider has it as a success of {amount}"))
        }
        Ok(Proof::Review { .. }) => ReversalAnswer::Review(
            "the provider's answer is for a person to judge: it was refused, or is about another account or currency"
                .to_owned(),
        ),
        Ok(Proof::NotExecuted { answer, .. } | Proof::Busy { answer, .. }) => {
            ReversalAnswer::Nothing(answer)
        }
        Ok(
            Proof::Processing { answer, .. }
            | Proof::Duplicate { answer }
            | Proof::NotFound { answer }
            | Proof::Unproven { answer }
            | Proof::InDoubt { answer },
        ) => ReversalAnswer::Unclear(answer),
    }
}

/// Why there is no answer.
enum Nothing {
    /// Nothing was sent, for certain.
    NeverSent(String),
    /// It may have arrived, and its answer is no use.
    Lost(String),
}
