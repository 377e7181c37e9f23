//! Errors of redemptions that were not begun: what each refusal is for the caller.

use super::RedeemCommand;
use crate::{
    domain::{account::Refusal, redemption::BeginRefusal},
    service::Error,
};

pub(super) fn refused(refusal: BeginRefusal, command: &RedeemCommand) -> Error {
    let lease = &command.lease;
    match refusal {
        BeginRefusal::NoPool => Error::PoolNotFound(lease.pool_id.clone()),
        BeginRefusal::NoAccount => {
            Error::AccountNotFound(lease.pool_id.clone(), lease.account_id.clone())
        }
        BeginRefusal::CodeInUse { redemption_id, request_id, state } => {
            Error::CodeInUse { redemption_id, request_id, state }
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
                expected_minor: command.expected.map(|money| money.amount_minor),
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
        | Refusal::BalanceTooLow => {
            Error::Internal("a redemption was refused for no reason of its own")
        }
    }
}
