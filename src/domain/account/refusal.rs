//! Why something cannot happen to an account.

use std::time::Duration;

use super::status::Rest;
use crate::domain::{
    id::{PlanId, RedemptionId},
    lease::LeaseLoss,
    plan::Misfit,
};

/// Why an event cannot happen to an account as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its pool begins nothing new.
    PoolPaused,
    /// Its pool gives out no new leases.
    PoolDraining,
    /// It is under a lease already.
    AlreadyLocked,
    /// It is full.
    Completed,
    /// The provider does not let it in, or a person took it out of use.
    Inactive,
    /// A person paused it.
    Paused,
    /// A person drains it.
    Draining,
    /// There is no such plan.
    NoPlan,
    /// It may not be used yet.
    Resting {
        /// Why.
        cause: Rest,
        /// For how long.
        left: Duration,
    },
    /// Its plan would not take the amount now, or wants nothing more.
    DoesNotFit {
        /// The plan.
        plan_id: PlanId,
        /// Why.
        misfit: Misfit,
        /// What the plan still wants, in minor units.
        headroom_minor: i64,
        /// How much of that today.
        day_headroom_minor: i64,
    },
    /// It is under no lease.
    NotLocked,
    /// The lease is not the caller's any more.
    LeaseLost(LeaseLoss),
    /// The lease is another caller's.
    OtherPrincipal,
    /// The lease's time has not passed yet.
    LeaseAlive,
    /// A redemption's outcome is not known yet.
    RedemptionOpen(RedemptionId),
    /// That redemption is not open on it.
    RedemptionNotOpen,
    /// Its day is not over.
    DayNotOver,
    /// It has less than is to be taken off.
    BalanceTooLow,
    /// It has another balance than the one that was compared.
    BalanceChanged,
    /// It has changed since somebody read it.
    ChangedSince,
    /// It is not completed.
    NotCompleted,
    /// Its plan wants nothing more.
    PlanIsFull,
}

impl Refusal {
    /// Whether it follows from the terms of the pool, and not from the account alone.
    pub fn is_of_terms(&self) -> bool {
        match self {
            Self::PoolPaused
            | Self::PoolDraining
            | Self::NoPlan
            | Self::DoesNotFit { .. }
            | Self::DayNotOver
            | Self::PlanIsFull => true,
            Self::AlreadyLocked
            | Self::Completed
            | Self::Inactive
            | Self::Paused
            | Self::Draining
            | Self::Resting { .. }
            | Self::NotLocked
            | Self::LeaseLost(_)
            | Self::OtherPrincipal
            | Self::LeaseAlive
            | Self::RedemptionOpen(_)
            | Self::RedemptionNotOpen
            | Self::BalanceTooLow
            | Self::BalanceChanged
            | Self::ChangedSince
            | Self::NotCompleted => false,
        }
    }
}
