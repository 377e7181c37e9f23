//! A provider as the services ask it: within its limits, and not while it fails as a whole.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::shared::{BrakeOutcome, BrakePermit, NoPermit, Permit, Shared};
use crate::{
    domain::{
        id::PoolId,
        money::Currency,
        provider::{Condition, Health, ProfileVersion},
        redemption::{
            Ask, CardCode, Past, RedeemLimits, Redemption, RedemptionState, ReversalAnswer, Step,
            Verdict,
        },
    },
    provider::{Call, CallError, Doubt, Provider, profile::Profile, question::Card},
    service::Error,
};

/// A provider, asked for one pool. Cheap to clone.
#[derive(Clone)]
pub struct LimitedProvider {
    provider: Provider,
    shared: Arc<Shared>,
    pool_id: PoolId,
}

/// What a send needs before it is recorded.
pub struct SendPermit {
    /// For the call.
    pub call: Permit,
    /// For what may become of it.
    pub brake: Option<BrakePermit>,
}

impl LimitedProvider {
    pub(super) fn new(provider: Provider, shared: Arc<Shared>, pool_id: PoolId) -> Self {
        Self { provider, shared, pool_id }
    }

    /// The version of the profile.
    pub fn version(&self) -> &ProfileVersion {
        self.provider.version()
    }

    /// The profile.
    pub fn profile(&self) -> &Profile {
        self.provider.profile()
    }

    /// Whether a permit that is given back unused costs nothing: no rate, brake or try of a provider that fails is used up.
    pub fn gives_back_permits(&self) -> bool {
        let limits = &self.profile().limits;
        limits.rate.is_none() && limits.brake.is_none() && !self.shared.is_failing()
    }

    /// The secrets that it names. The error says what is wrong with each that cannot be used.
    pub fn secrets(&self) -> Result<BTreeMap<String, String>, Vec<String>> {
        self.provider.secrets()
    }

    /// How long redemptions may be sent, and what it can do for those in doubt.
    pub fn limits(&self) -> &RedeemLimits {
        self.provider.limits()
    }

    /// The call that asks about a redemption that is settled, if one can be made.
    pub fn question_of_past(&self, has_task: bool) -> Option<Call> {
        self.provider.question_of_past(has_task)
    }

    /// Waits until a redemption may be sent: before it is recorded, so that one that waits was certainly not sent.
    pub async fn admit(&self, patience: Duration) -> Result<SendPermit, Error> {
        let answer_by = self.limits().take_over();
        let brake = Box::pin(self.shared.brake(answer_by, patience)).await;
        let brake = brake.map_err(|why| self.refused(why))?;
        match Box::pin(self.permit(patience)).await {
            Ok(call) => Ok(SendPermit { call, brake }),
            Err(why) => {
                free(brake);
                Err(self.refused(why))
            }
        }
    }

    /// Makes the call that was admitted, and says what its answer calls for.
    pub async fn send(&self, permit: Permit, doubt: Doubt, ask: &Ask) -> Step {
        self.call(&permit, Call::Send, doubt, ask).await
    }

    /// Makes a call about a redemption when it may be made, and says what its answer calls for.
    pub async fn ask(&self, call: Call, doubt: Doubt, ask: &Ask, patience: Duration) -> Step {
        match self.ask_in_time(call, doubt, ask, patience).await {
            Ok(step) => step,
            Err(why) => {
                let why = match why {
                    Error::ShuttingDown => "the server was shutting down".to_owned(),
                    why => why.to_string(),
                };
                self.provider.not_made(ask, call, doubt, why)
            }
        }
    }

    /// The same. The error: it could not be made in time, and was not.
    pub async fn ask_in_time(
        &self,
        call: Call,
        doubt: Doubt,
        ask: &Ask,
        patience: Duration,
    ) -> Result<Step, Error> {
        let permit = Box::pin(self.permit(patience)).await.map_err(|why| self.refused(why))?;
        Ok(self.call(&permit, call, doubt, ask).await)
    }

    /// Sends again what is in doubt.
    pub async fn send_again(&self, ask: &Ask, patience: Duration) -> Step {
        let brake = match Box::pin(self.shared.brake(self.limits().hold(), patience)).await {
            Ok(brake) => brake,
            Err(why) => {
                let answer = self.refused(why).to_string();
                return Step::InDoubt { answer, is_answer: false };
            }
        };
        let step = self.ask(Call::Send, Doubt::InDoubt, ask, patience).await;
        if let Some(brake) = brake {
            let outcome = match &step {
                Step::Settle(Verdict::Failed { failure, .. }) => brake.outcome_of(&failure.reason),
                Step::Settle(_) => BrakeOutcome::Free,
                _ => BrakeOutcome::Unknown,
            };
            brake.conclude(outcome);
        }
        step
    }

    /// Asks what a card is worth. `None`: the provider does not know it.
    pub async fn inquire(
        &self,
        code: &CardCode,
        currency: Currency,
        patience: Duration,
    ) -> Result<Result<Option<Card>, CallError>, Error> {
        let answer_by = self.limits().call_timeout * 2;
        let brake = Box::pin(self.shared.brake(answer_by, patience)).await;
        let brake = brake.map_err(|why| self.refused(why))?;
        let permit = match Box::pin(self.permit(patience)).await {
            Ok(permit) => permit,
            Err(why) => {
                free(brake);
                return Err(self.refused(why));
            }
        };
        let begun = Instant::now();
        let inquired = self.provider.inquire(code, currency).await;
        self.measure("inquire", inquired.condition, begun.elapsed());
        permit.note(inquired.condition);
        if let Some(brake) = brake {
            let outcome = match (&inquired.card, &inquired.failure) {
                (_, Some(reason)) => brake.outcome_of(reason),
                // A code that it does not know, in no words of its own.
                (Ok(None), None) => BrakeOutcome::Failed,
                (Ok(Some(_)) | Err(CallError::NeverSent(_)), None) => BrakeOutcome::Free,
                (Err(_), None) => BrakeOutcome::Unknown,
            };
            brake.conclude(outcome);
        }
        Ok(inquired.card)
    }

    /// Makes a call about a redemption that is settled, when it may be made.
    pub async fn ask_past(&self, call: Call, past: &Past, patience: Duration) -> ReversalAnswer {
        match self.permit(patience).await {
            Ok(_permit) => self.provider.ask_past(call, past).await,
            Err(why) => ReversalAnswer::NeverSent(self.refused(why).to_string()),
        }
    }

    fn permit(&self, patience: Duration) -> impl Future<Output = Result<Permit, NoPermit>> {
        self.shared.permit(&self.pool_id, self.limits().call_timeout, patience)
    }

    async fn call(&self, permit: &Permit, call: Call, doubt: Doubt, ask: &Ask) -> Step {
        let begun = Instant::now();
        let asked = self.provider.ask(call, doubt, ask).await;
        self.measure(call.name(), asked.condition, begun.elapsed());
        permit.note(asked.condition);
        asked.step
    }

    fn measure(&self, op: &'static str, condition: Condition, took: Duration) {
        let outcome = match condition.health {
            Health::Working => "answered",
            Health::Failing => "failed",
            Health::Unknown => "held_back",
        };
        let provider = self.version().provider_id.as_str().to_owned();
        metrics::histogram!(
            "holdfast_provider_call_seconds",
            "provider" => provider, "op" => op, "outcome" => outcome
        )
        .record(took);
    }

    fn refused(&self, why: NoPermit) -> Error {
        match why {
            NoPermit::Store(error) => error.into(),
            NoPermit::Closing => Error::ShuttingDown,
            NoPermit::Held(held) => Error::ProviderUnavailable {
                provider_id: self.version().provider_id.clone(),
                why: held.why,
                retry_after: Some(held.retry_after),
            },
        }
    }
}

/// What became of a send that a brake counts.
pub fn brake_outcome(brake: &BrakePermit, redemption: &Redemption) -> BrakeOutcome {
    match (redemption.state, &redemption.failure) {
        (RedemptionState::Failed, Some(failure)) => brake.outcome_of(&failure.reason),
        (RedemptionState::Succeeded, _) => BrakeOutcome::Free,
        _ => BrakeOutcome::Unknown,
    }
}

/// Nothing was sent.
pub fn free(brake: Option<BrakePermit>) {
    if let Some(brake) = brake {
        brake.conclude(BrakeOutcome::Free);
    }
}
