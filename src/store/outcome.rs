//! Outcomes of redemptions: settle when one is known, defer while it is not.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use uuid::Uuid;

use super::{
    Store, StoreError,
    apply::{Applied, Asked, Done, RecordedOutcome, SettledColumns},
    db::Db,
    interval,
    lane::{Batch, Ran, at_all_points, steps_of},
    redemption::{Redemption, Resolution, read_amount, redemption_row},
};
use crate::{
    domain::{
        account::{Account, AccountEvent, HoldCause, Settle, SettleOutcome},
        id::{PoolId, RedemptionId},
        money::Money,
        redemption::{Failure, RedemptionState},
    },
    failpoints::Step,
};

/// An outcome to record.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// The redemption, as it is known.
    pub redemption: Redemption,
    /// What became of it.
    pub outcome: Outcome,
    /// Calls to the provider since the last record.
    pub attempts: i32,
    /// Who settles: a holder, the reconciler, or a person.
    pub actor: String,
    /// A person's word, when it is that.
    pub resolution: Option<Resolution>,
    /// What is wrong with the account, where that is why it failed.
    pub hold: Option<HoldCause>,
    /// It only follows from what this server sent. It does not hold once the redemption is in doubt,
    /// because then somebody else may have sent it too.
    pub inferred: bool,
}

/// See [`Settlement`].
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Credited.
    Succeeded {
        /// This much.
        amount: Money,
        /// The provider's own name for it, if it is known.
        provider_ref: Option<String>,
    },
    /// Not credited.
    Failed(Failure),
}

/// What a settlement did.
#[derive(Clone, Debug)]
pub enum Settled {
    /// It is recorded.
    Recorded {
        /// As settled.
        redemption: Box<Redemption>,
        /// The account after it.
        account: Box<Account>,
    },
    /// The redemption was settled before, or there is none. Or it is in doubt and the outcome was only inferred,
    /// or it has changed since the person who settles saw it.
    Already,
    /// A row of the answer could not be read.
    Unreadable(StoreError),
}

/// Doubt to record.
#[derive(Clone, Debug)]
pub struct Deferral {
    /// The redemption.
    pub redemption_id: RedemptionId,
    /// What was answered.
    pub answer: String,
    /// Calls to the provider since the last record.
    pub attempts: i32,
    /// What to do next.
    pub next: Next,
}

/// See [`Deferral`].
#[derive(Clone, Debug)]
pub enum Next {
    /// The reconciler checks it, after a while.
    Check {
        /// How long.
        after: Duration,
        /// Whether the provider did not know the key this time.
        not_found: bool,
        /// Checks by the reconciler up to this one; when there were more, another server checks.
        checks: i32,
    },
    /// A person reviews it.
    Review {
        /// What does not fit.
        failure: Failure,
        /// What the provider says that it credited.
        amount: Option<Money>,
        /// The provider's own name for it.
        provider_ref: Option<String>,
    },
}
redemption_row!(DeferredRow {});

impl Store {
    /// Records an outcome, credits the account and gives it back if that was asked for or is due. The account's own
    /// mark is guard enough: while it is there, no lease follows the one under which the redemption was begun.
    pub async fn settle(
        &self,
        pool_id: &PoolId,
        settlement: Settlement,
    ) -> Result<Settled, StoreError> {
        let applied = self.apply.call(pool_id, settlement.asked()).await?;
        self.settled(pool_id, settlement, applied).await
    }

    /// Records that the provider credited a redemption which was recorded as failed, and adds the amount to its
    /// account, under any lease.
    pub async fn credit_late(
        &self,
        redemption: &Redemption,
        (amount, provider_ref): (Money, Option<&str>),
        attempts: i32,
        actor: &str,
    ) -> Result<LateCredit, StoreError> {
        let event = AccountEvent::CreditLate {
            amount_minor: amount.amount_minor,
            begun_on: redemption.begun_on.clone(),
            actor: actor.to_owned(),
        };
        let reason = redemption.failure.as_ref().map(|failure| failure.reason.as_str());
        let outcome = RecordedOutcome {
            redemption_id: redemption.redemption_id,
            known_state: Some(RedemptionState::Failed),
            state: RedemptionState::Succeeded,
            amount: Some(amount),
            provider_ref: provider_ref.map(str::to_owned),
            failure: None,
            attempts,
            last_answer: Some(format!("recorded as FAILED before: {}", reason.unwrap_or_default())),
            resolution: None,
        };
        let asked = Asked::new(redemption.account_id.clone(), event).with_outcome(outcome);
        match self.apply.call(&redemption.pool_id, asked).await {
            Ok(Applied::Done(_)) => Ok(LateCredit::Recorded),
            Ok(Applied::Unreadable(error)) => Err(error),
            Ok(_) => Ok(LateCredit::NotFailed),
            Err(StoreError::CodeRedeemedAgain) => Ok(LateCredit::CodeRedeemedAgain),
            Err(error) => Err(error),
        }
    }

    async fn settled(
        &self,
        pool_id: &PoolId,
        Settlement { redemption, outcome, .. }: Settlement,
        applied: Applied,
    ) -> Result<Settled, StoreError> {
        let Done { account, settled } = match applied {
            Applied::Done(done) => *done,
            Applied::Unreadable(error) => return Ok(Settled::Unreadable(error)),
            _ => return Ok(Settled::Already),
        };
        let redemption = match settled {
            Some(settled) => redemption.settled(outcome, settled)?,
            // By a statement whose reply was lost.
            None => match self.get_redemption(pool_id, redemption.redemption_id).await? {
                Some(redemption) => redemption,
                None => return Ok(Settled::Already),
            },
        };
        Ok(Settled::Recorded { redemption: Box::new(redemption), account: Box::new(account) })
    }

    /// Records that an outcome is not known yet; `None` when it is known, or is a person's to find.
    pub async fn defer(
        &self,
        pool_id: &PoolId,
        deferral: Deferral,
    ) -> Result<Option<Redemption>, StoreError> {
        self.defer.call(pool_id, deferral).await?.transpose()
    }
}
/// The inputs without those that name a redemption which an earlier one names. A statement changes a
/// row once, and which of two inputs it took could not be told. The later ones find it changed.
fn firsts<T>(inputs: &[T], id: impl Fn(&T) -> RedemptionId) -> impl Iterator<Item = &T> {
    let mut seen = HashSet::new();
    inputs.iter().filter(move |input| seen.insert(id(input)))
}

impl Settlement {
    fn asked(&self) -> Asked {
        let redemption = &self.redemption;
        let outcome = match &self.outcome {
            Outcome::Succeeded { amount, .. } => {
                SettleOutcome::Succeeded { amount_minor: amount.amount_minor }
            }
            Outcome::Failed(_) => SettleOutcome::Failed { hold: self.hold },
        };
        let settle = Settle {
            redemption_id: redemption.redemption_id,
            outcome,
            release: redemption.release_on_completion,
            actor: self.actor.clone(),
        };
        let recorded = RecordedOutcome {
            redemption_id: redemption.redemption_id,
            known_state: self.known_state(),
            state: self.outcome.state(),
            amount: self.outcome.amount(),
            provider_ref: self.outcome.provider_ref(),
            failure: self.outcome.failure().cloned(),
            attempts: self.attempts,
            last_answer: None,
            resolution: self.resolution.clone(),
        };
        Asked::new(redemption.account_id.clone(), AccountEvent::Settle(settle))
            .with_outcome(recorded)
    }

    /// The state that the redemption must still be in. What is only inferred holds while nobody else may have sent
    /// it. A person's word holds while no more is known than that person saw. Evidence always holds.
    fn known_state(&self) -> Option<RedemptionState> {
        match self {
            Self { inferred: true, .. } => Some(RedemptionState::Submitted),
            Self { resolution: Some(_), redemption, .. } => Some(redemption.state),
            _ => None,
        }
    }
}

impl Redemption {
    /// The redemption as it was settled.
    fn settled(self, outcome: Outcome, now: SettledColumns) -> Result<Self, StoreError> {
        Ok(Self {
            state: outcome.state(),
            amount: read_amount(now.amount_minor, now.amount_currency.as_deref())?,
            provider_ref: now.provider_ref,
            failure: outcome.failure().cloned(),
            resolution: now.resolution,
            attempts: now.attempts,
            last_answer: now.last_answer,
            next_check_at: None,
            finished_at: Some(now.at),
            ..self
        })
    }
}

/// What became of a late credit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LateCredit {
    /// It is recorded, and the account has it.
    Recorded,
    /// The redemption is not recorded as failed, or not any more.
    NotFailed,
    /// The code was redeemed again since, under another request: a person has to decide.
    CodeRedeemedAgain,
}

impl Outcome {
    fn state(&self) -> RedemptionState {
        match self {
            Self::Succeeded { .. } => RedemptionState::Succeeded,
            Self::Failed(_) => RedemptionState::Failed,
        }
    }

    fn amount(&self) -> Option<Money> {
        match self {
            Self::Succeeded { amount, .. } => Some(*amount),
            Self::Failed(_) => None,
        }
    }

    fn provider_ref(&self) -> Option<String> {
        match self {
            Self::Succeeded { provider_ref, .. } => provider_ref.clone(),
            Self::Failed(_) => None,
        }
    }

    fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Succeeded { .. } => None,
            Self::Failed(failure) => Some(failure),
        }
    }
}

/// The lane of deferrals. May be repeated: the same doubt twice is counted twice, and is no worse.
#[derive(Debug)]
pub(super) struct Defer {
    pub(super) db: Db,
}

impl Batch for Defer {
    type Input = Deferral;
    type Output = Option<Result<Redemption, StoreError>>;
    const NAME: &'static str = "defer";

    fn step(_: &Deferral) -> Option<Step> {
        Some(Step::Defer)
    }

    fn may_be_dropped(_: &Deferral) -> bool {
        false
    }

    async fn run(
        &self,
        pool_id: &PoolId,
        inputs: &[Deferral],
        _: bool,
    ) -> Result<Vec<Ran<Self::Output>>, sqlx::Error> {
        let first: Vec<_> = firsts(inputs, |deferral| deferral.redemption_id).collect();
        let rows = at_all_points(&steps_of::<Self>(inputs), self.update(pool_id, &first)).await?;
        let mut deferred: HashMap<Uuid, _> =
            rows.into_iter().map(|row| (row.redemption_id, row.redemption(pool_id))).collect();
        Ok(inputs.iter().map(|input| Ran::Done(deferred.remove(&input.redemption_id.0))).collect())
    }
}

impl Defer {
    async fn update(
        &self,
        pool_id: &PoolId,
        inputs: &[&Deferral],
    ) -> Result<Vec<DeferredRow>, sqlx::Error> {
        let text = |read: fn(&Next) -> Option<String>| -> Vec<Option<String>> {
            inputs.iter().map(|d| read(&d.next)).collect()
        };
        sqlx::query_file_as!(
            DeferredRow,
            "src/store/sql/defer.sql",
            pool_id.as_str(),
            &inputs.iter().map(|d| d.redemption_id.0).collect::<Vec<_>>(),
            &inputs.iter().map(|d| d.next.state().as_str().to_owned()).collect::<Vec<_>>(),
            &inputs.iter().map(|d| d.answer.clone()).collect::<Vec<_>>(),
            &inputs.iter().map(|d| d.next.after().map(interval)).collect::<Vec<_>>()
                as &[Option<sqlx::postgres::types::PgInterval>],
            &inputs.iter().map(|d| d.attempts).collect::<Vec<_>>(),
            &inputs.iter().map(|d| d.next.not_found()).collect::<Vec<_>>(),
            &inputs.iter().map(|d| d.next.amount().map(|m| m.amount_minor)).collect::<Vec<_>>()
                as &[Option<i64>],
            &text(|n| n.amount().map(|m| m.currency.to_string())) as &[Option<String>],
            &text(|n| n.provider_ref()) as &[Option<String>],
            &text(|n| n.failure().map(|f| f.reason.clone())) as &[Option<String>],
            &text(|n| n.failure().map(|f| f.message.clone())) as &[Option<String>],
            &inputs.iter().map(|d| d.next.failure().map(|f| f.code_spent)).collect::<Vec<_>>()
                as &[Option<bool>],
            &inputs.iter().map(|d| d.next.checks()).collect::<Vec<_>>(),
        )
        .fetch_all(&self.db)
        .await
    }
}

impl Next {
    fn state(&self) -> RedemptionState {
        match self {
            Self::Check { .. } => RedemptionState::InDoubt,
            Self::Review { .. } => RedemptionState::NeedsReview,
        }
    }

    fn after(&self) -> Option<Duration> {
        match self {
            Self::Check { after, .. } => Some(*after),
            Self::Review { .. } => None,
        }
    }

    fn checks(&self) -> i32 {
        match self {
            Self::Check { checks, .. } => *checks,
            Self::Review { .. } => 0,
        }
    }

    fn not_found(&self) -> bool {
        matches!(self, Self::Check { not_found: true, .. })
    }

    fn amount(&self) -> Option<Money> {
        match self {
            Self::Check { .. } => None,
            Self::Review { amount, .. } => *amount,
        }
    }

    fn provider_ref(&self) -> Option<String> {
        match self {
            Self::Check { .. } => None,
            Self::Review { provider_ref, .. } => provider_ref.clone(),
        }
    }

    fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Check { .. } => None,
            Self::Review { failure, .. } => Some(failure),
        }
    }
}
