//! Errors of redemptions that were not begun: what each refusal is for the caller.

use super::RedeemCommand;
use crate::{
    domain::{
        account::Refusal,
        principal::Authority,
        redemption::{BeginRefusal, Living},
    },
    failpoints::{Guard, holds},
    service::{Error, error::OWN_LEASE},
};

/// A code that another redemption has. Which one is told to those who may read it.
pub(in crate::service) fn code_in_use(living: Living, by: &Authority) -> Error {
    let Living { redemption_id, request, state } = living;
    let may_read = by.may_read(&request.principal) || !holds(Guard::OthersAreNotNamed);
    let redemption = may_read.then_some((redemption_id, request.request_id));
    Error::CodeInUse { redemption, state }
}

pub(super) fn refused(refusal: BeginRefusal, command: &RedeemCommand) -> Error {
    let lease = &command.lease;
    match refusal {
        BeginRefusal::NoPool => Error::PoolNotFound(lease.pool_id.clone()),
        BeginRefusal::NoAccount => {
            Error::AccountNotFound(lease.pool_id.clone(), lease.account_id.clone())
        }
        BeginRefusal::CodeInUse { redemption_id, request, state } => {
            code_in_use(Living { redemption_id, request, state }, &command.card.by)
        }
        BeginRefusal::Account(refusal, _) => refused_by_account(refusal, command),
        BeginRefusal::TryAgain | BeginRefusal::OldKeys => Error::Overloaded,
    }
}

fn refused_by_account(refusal: Refusal, command: &RedeemCommand) -> Error {
    let lease = &command.lease;
    let (pool_id, account_id) = (lease.pool_id.clone(), lease.account_id.clone());
    match refusal {
        Refusal::LeaseLost(loss) => Error::LeaseLost { lease: lease.clone(), loss },
        Refusal::OtherPrincipal => Error::OthersLease { lease: lease.clone(), needs: OWN_LEASE },
        Refusal::RedemptionOpen(id) => Error::RedemptionOpen(id),
        Refusal::PoolPaused => Error::PoolPaused(pool_id),
        Refusal::Paused => Error::AccountPaused(pool_id, account_id),
        Refusal::Resting { cause, left } => {
            Error::AccountNotReady { pool_id, account_id, cause, left }
        }
        Refusal::DoesNotFit { plan_id, misfit, headroom_minor, day_headroom_minor } => {
            Error::AmountDoesNotFit {
                account_id,
                plan_id,
                expected_minor: command.card.expected.map(|money| money.amount_minor),
                misfit,
                headroom_minor,
                day_headroom_minor,
            }
        }
        // A begin meets none of these.
        Refusal::PoolDraining
        | Refusal::AlreadyLocked
        | Refusal::Completed
        | Refusal::Inactive
        | Refusal::Draining
        | Refusal::NoPlan
        | Refusal::NotLocked
        | Refusal::LeaseAlive
        | Refusal::RedemptionNotOpen
        | Refusal::DayNotOver
        | Refusal::BalanceTooLow
        | Refusal::BalanceChanged
        | Refusal::ChangedSince
        | Refusal::NotCompleted
        | Refusal::PlanIsFull => {
            Error::Internal("a redemption was refused for no reason of its own")
        }
    }
}
