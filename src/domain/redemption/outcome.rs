//! Outcomes of redemptions, to be recorded: settled when one is known, deferred while it is not.

use std::time::Duration;

use super::{Failure, Redemption, RedemptionState, Resolution};
use crate::domain::{
    account::Account, hold::HoldCause, id::RedemptionId, money::Money, principal::Authority,
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
    /// Who calls, when it is that.
    pub by: Option<Authority>,
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
        /// How many odd answers count from now on.
        odd_checks: i32,
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

impl Settlement {
    /// The state that the redemption must still be in. What is only inferred holds while nobody else may have sent
    /// it. A person's word holds while no more is known than that person saw. Evidence always holds.
    pub fn known_state(&self) -> Option<RedemptionState> {
        match self {
            Self { inferred: true, .. } => Some(RedemptionState::Submitted),
            Self { resolution: Some(_), redemption, .. } => Some(redemption.state),
            _ => None,
        }
    }
}

impl Outcome {
    /// The state that it leads to.
    pub fn state(&self) -> RedemptionState {
        match self {
            Self::Succeeded { .. } => RedemptionState::Succeeded,
            Self::Failed(_) => RedemptionState::Failed,
        }
    }

    /// What the provider says that it credited.
    pub fn amount(&self) -> Option<Money> {
        match self {
            Self::Succeeded { amount, .. } => Some(*amount),
            Self::Failed(_) => None,
        }
    }

    /// The provider's own name for it.
    pub fn provider_ref(&self) -> Option<String> {
        match self {
            Self::Succeeded { provider_ref, .. } => provider_ref.clone(),
            Self::Failed(_) => None,
        }
    }

    /// What does not fit, or went wrong.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Succeeded { .. } => None,
            Self::Failed(failure) => Some(failure),
        }
    }
}

impl Next {
    /// The state that it leads to.
    pub fn state(&self) -> RedemptionState {
        match self {
            Self::Check { .. } => RedemptionState::InDoubt,
            Self::Review { .. } => RedemptionState::NeedsReview,
        }
    }

    /// After what time it is checked; `None` when a person reviews it.
    pub fn after(&self) -> Option<Duration> {
        match self {
            Self::Check { after, .. } => Some(*after),
            Self::Review { .. } => None,
        }
    }

    /// Checks by the reconciler up to this one.
    pub fn checks(&self) -> i32 {
        match self {
            Self::Check { checks, .. } => *checks,
            Self::Review { .. } => 0,
        }
    }

    /// Whether the provider did not know the key this time.
    pub fn not_found(&self) -> bool {
        matches!(self, Self::Check { not_found: true, .. })
    }

    /// How many odd answers count from now on.
    pub fn odd_checks(&self) -> i32 {
        match self {
            Self::Check { odd_checks, .. } => *odd_checks,
            Self::Review { .. } => 0,
        }
    }

    /// What the provider says that it credited.
    pub fn amount(&self) -> Option<Money> {
        match self {
            Self::Check { .. } => None,
            Self::Review { amount, .. } => *amount,
        }
    }

    /// The provider's own name for it.
    pub fn provider_ref(&self) -> Option<String> {
        match self {
            Self::Check { .. } => None,
            Self::Review { provider_ref, .. } => provider_ref.clone(),
        }
    }

    /// What does not fit, or went wrong.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Check { .. } => None,
            Self::Review { failure, .. } => Some(failure),
        }
    }
}
