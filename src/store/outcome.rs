//! What becomes of redemptions: settle when an outcome is known, defer while it is not. Each a lane.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use uuid::Uuid;

use super::{
    Store, StoreError,
    account::{read_plan_id, read_status},
    db::Db,
    interval,
    lane::Batch,
    redemption::{Redemption, Resolution, redemption_row},
    walks::Freed,
};
use crate::{
    domain::{
        account::{AccountStatus, HoldCause},
        id::{PoolId, RedemptionId},
        money::Money,
        redemption::{Failure, RedemptionState},
    },
    failpoints::Step,
};

/// An outcome to record.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// The redemption.
    pub redemption_id: RedemptionId,
    /// What became of it.
    pub outcome: Outcome,
    /// Calls to the provider since the last record.
    pub attempts: i32,
    /// Who settles: a holder, the reconciler, or a person.
    pub actor: String,
    /// A person's word, when it is that.
    pub resolution: Option<Resolution>,
    /// The state that person saw it in: in another one, more is known of it than that person knew.
    pub seen: Option<RedemptionState>,
    /// What is wrong with the account, where that is why it failed.
    pub hold: Option<HoldCause>,
    /// It only follows from what this server sent: it does not hold once the redemption is in doubt,
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
        /// The account's status now.
        account_status: AccountStatus,
        /// The status that it has, or goes back to when its lease ends.
        resume_status: AccountStatus,
        /// The account's balance now, in minor units.
        account_balance_minor: i64,
        /// The account, if it is free now, for those who look for one.
        freed: Option<Freed>,
    },
    /// The redemption was settled before, or there is none, or it is in doubt and the outcome was only
    /// inferred, or it is not as the person who settles saw it.
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
    /// The reconciler looks at it, after a while.
    Check {
        /// How long.
        after: Duration,
        /// Whether the provider did not know the key this time.
        not_found: bool,
        /// Looks by the reconciler up to this one; when there were more, somebody else looks.
        looks: i32,
    },
    /// A person looks at it.
    Review {
        /// What does not fit.
        failure: Failure,
        /// What the provider says that it credited.
        amount: Option<Money>,
        /// The provider's own name for it.
        provider_ref: Option<String>,
    },
}
redemption_row!(SettledRow {
    account_status: String,
    resume_status: String,
    account_balance_minor: i64,
    account_plan_id: Option<String>,
    account_plan_day: i32,
    account_updated_at: time::OffsetDateTime,
    account_usable_at: Option<time::OffsetDateTime>
});
redemption_row!(DeferredRow {});

impl Store {
    /// Records an outcome, credits the account and gives it back if that was wished or due.
    pub async fn settle(
        &self,
        pool_id: &PoolId,
        settlement: Settlement,
    ) -> Result<Settled, StoreError> {
        self.settle.call(pool_id, settlement).await
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
/// The inputs without those that name a redemption which an earlier one names: a statement changes a
/// row once, and which of two inputs it took could not be told. The later ones find it changed.
fn firsts<T>(inputs: &[T], id: impl Fn(&T) -> RedemptionId) -> impl Iterator<Item = &T> {
    let mut seen = HashSet::new();
    inputs.iter().filter(move |input| seen.insert(id(input)))
}

/// The lane of settlements. May be repeated: one that was recorded is found settled, and whoever
/// settles then reads what is there.
#[derive(Debug)]
pub(super) struct Settle {
    pub(super) db: Db,
}

impl Batch for Settle {
    type Input = Settlement;
    type Output = Settled;
    const STEP: Step = Step::Settle;
    const DROPPED_WITH_CALLER: bool = false;

    async fn run(
        &self,
        pool_id: &PoolId,
        inputs: &[Settlement],
    ) -> Result<Vec<Settled>, sqlx::Error> {
        let first: Vec<_> = firsts(inputs, |settlement| settlement.redemption_id).collect();
        let rows = self.update(pool_id, &first).await?;
        let mut settled: HashMap<Uuid, Settled> =
            rows.into_iter().map(|row| (row.redemption_id, row.settled(pool_id))).collect();
        Ok(inputs
            .iter()
            .map(|input| settled.remove(&input.redemption_id.0).unwrap_or(Settled::Already))
            .collect())
    }
}

impl Settle {
    async fn update(
        &self,
        pool_id: &PoolId,
        inputs: &[&Settlement],
    ) -> Result<Vec<SettledRow>, sqlx::Error> {
        let column = |read: fn(&Settlement) -> Option<String>| -> Vec<Option<String>> {
            inputs.iter().map(|settlement| read(settlement)).collect()
        };
        sqlx::query_file_as!(
            SettledRow,
            "src/store/sql/settle.sql",
            pool_id.as_str(),
            &inputs.iter().map(|s| s.redemption_id.0).collect::<Vec<_>>(),
            &inputs.iter().map(|s| s.outcome.state().as_str().to_owned()).collect::<Vec<_>>(),
            &inputs.iter().map(|s| s.outcome.amount().map(|m| m.amount_minor)).collect::<Vec<_>>()
                as &[Option<i64>],
            &column(|s| s.outcome.amount().map(|m| m.currency.to_string())) as &[Option<String>],
            &column(|s| s.outcome.provider_ref()) as &[Option<String>],
            &column(|s| s.outcome.failure().map(|f| f.reason.clone())) as &[Option<String>],
            &column(|s| s.outcome.failure().map(|f| f.message.clone())) as &[Option<String>],
            &inputs.iter().map(|s| s.outcome.failure().map(|f| f.code_spent)).collect::<Vec<_>>()
                as &[Option<bool>],
            &inputs.iter().map(|s| s.attempts).collect::<Vec<_>>(),
            &inputs.iter().map(|s| s.actor.clone()).collect::<Vec<_>>(),
            &column(|s| s.resolution.as_ref().map(|r| r.resolved_by.clone()))
                as &[Option<String>],
            &column(|s| s.resolution.as_ref().map(|r| r.reason.clone())) as &[Option<String>],
            &column(|s| s.hold.map(|cause| cause.as_str().to_owned())) as &[Option<String>],
            &inputs.iter().map(|s| s.inferred).collect::<Vec<_>>(),
            &column(|s| s.resolution.as_ref().and_then(|r| r.evidence.clone()))
                as &[Option<String>],
            &column(|s| s.seen.map(|state| state.as_str().to_owned())) as &[Option<String>],
        )
        .fetch_all(&self.db)
        .await
    }
}

impl SettledRow {
    fn settled(self, pool_id: &PoolId) -> Settled {
        let account_balance_minor = self.account_balance_minor;
        let read = || {
            let account_status = read_status(&self.account_status)?;
            let resume_status = read_status(&self.resume_status)?;
            let plan_id = self.account_plan_id.as_deref().map(read_plan_id).transpose()?;
            let freed = Freed::new(
                plan_id.as_ref(),
                account_status,
                self.account_plan_day,
                account_balance_minor,
                self.account_updated_at,
                self.account_usable_at,
            );
            let redemption = Box::new(self.redemption(pool_id)?);
            let freed = freed.map(|freed| freed.named(redemption.account_id.clone()));
            Ok(Settled::Recorded {
                redemption,
                account_status,
                resume_status,
                account_balance_minor,
                freed,
            })
        };
        read().unwrap_or_else(Settled::Unreadable)
    }
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
    const STEP: Step = Step::Defer;
    const DROPPED_WITH_CALLER: bool = false;

    async fn run(
        &self,
        pool_id: &PoolId,
        inputs: &[Deferral],
    ) -> Result<Vec<Self::Output>, sqlx::Error> {
        let first: Vec<_> = firsts(inputs, |deferral| deferral.redemption_id).collect();
        let rows = self.update(pool_id, &first).await?;
        let mut deferred: HashMap<Uuid, _> =
            rows.into_iter().map(|row| (row.redemption_id, row.redemption(pool_id))).collect();
        Ok(inputs.iter().map(|input| deferred.remove(&input.redemption_id.0)).collect())
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
            &inputs.iter().map(|d| d.next.looks()).collect::<Vec<_>>(),
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

    fn looks(&self) -> i32 {
        match self {
            Self::Check { looks, .. } => *looks,
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
