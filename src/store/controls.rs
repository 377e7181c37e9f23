//! Negative controls of the rules in `domain/account.rs`: what a decision does not see of an account, an event and a
//! pool where a guard is switched off. Where failpoints are not compiled in, decisions see everything.

use std::borrow::Cow;

use crate::{
    domain::{
        account::{Account, AccountEvent, Change, LoginStatus, Refusal, transition},
        plan::Terms,
        pool::PoolTerms,
        principal::Principal,
    },
    failpoints::{
        Guard::{self, *},
        holds,
    },
};

/// The guards that can be switched off.
const GUARDS: [Guard; 10] = [
    TokensAreCompared,
    LeasesAreTheirPrincipals,
    PausedPoolsBeginNothing,
    PausedAccountsBeginNothing,
    RestingAccountsAreNotUsed,
    PlansTakeWhatFits,
    InactiveAccountsAreNotLeased,
    OpenRedemptionsKeepTheLease,
    LeasesLastTheirTime,
    OutcomesAreRecordedOnce,
];

/// [`transition`], with the guards that hold.
pub(super) fn decide(
    account: &Account,
    event: &AccountEvent,
    pool: &PoolTerms,
) -> Result<Change, Refusal> {
    if GUARDS.into_iter().all(holds) {
        return transition(account, event, pool);
    }
    let (mut seen, mut event, mut pool) = (account.clone(), event.clone(), pool.clone());
    hide_of_event(&mut seen, &mut event);
    if let Some(lease) = seen.lease.as_mut().filter(|_| !holds(LeasesAreTheirPrincipals)) {
        lease.request.principal = Principal::anonymous();
    }
    pool.paused &= holds(PausedPoolsBeginNothing);
    seen.paused &= holds(PausedAccountsBeginNothing);
    if !holds(InactiveAccountsAreNotLeased) {
        seen.login_status = LoginStatus::Active;
    }
    if !holds(RestingAccountsAreNotUsed) {
        (seen.day_due_at, seen.cooldown_until, seen.hold) = (None, None, None);
    }
    hide_of_plans(&mut pool);
    let mut change = transition(&seen, &event, &pool)?;
    if matches!(event, AccountEvent::Expire { .. }) {
        change.next.open_redemption_id = account.open_redemption_id;
    }
    Ok(change)
}

/// What the choice sees of a pool's terms where the guard is switched off.
pub(in crate::store) fn seen(pool: &PoolTerms) -> Cow<'_, PoolTerms> {
    if holds(PlansTakeWhatFits) {
        return Cow::Borrowed(pool);
    }
    let mut pool = pool.clone();
    hide_of_plans(&mut pool);
    Cow::Owned(pool)
}

fn hide_of_plans(pool: &mut PoolTerms) {
    if !holds(PlansTakeWhatFits) {
        for terms in pool.plans.values_mut() {
            *terms = Terms::up_to(i64::MAX);
        }
    }
}

/// Whether a refusal counts: only where the account and the terms were read since the caller came.
pub(super) fn counts(is_fresh: bool) -> bool {
    is_fresh || !holds(RefusalsAreFresh)
}

/// Hides what the rules of this event compare.
fn hide_of_event(account: &mut Account, event: &mut AccountEvent) {
    match event {
        AccountEvent::Begin { token, .. }
        | AccountEvent::Release { token, .. }
        | AccountEvent::Renew { token, .. }
            if !holds(TokensAreCompared) =>
        {
            *token = account.token;
        }
        AccountEvent::Settle(settle) if !holds(OutcomesAreRecordedOnce) => {
            account.open_redemption_id = Some(settle.redemption_id);
        }
        AccountEvent::Expire { .. } => {
            if !holds(OpenRedemptionsKeepTheLease) {
                account.open_redemption_id = None;
            }
            if let Some(lease) = account.lease.as_mut().filter(|_| !holds(LeasesLastTheirTime)) {
                lease.expires_at = account.as_of;
            }
        }
        _ => {}
    }
}
