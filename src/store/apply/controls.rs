//! Negative controls of the rules in `domain/account.rs`: what a decision does not see of an account, an event and a
//! pool where a guard is switched off. Where failpoints are not compiled in, decisions see everything.

use crate::{
    domain::{
        account::{Account, AccountEvent, Change, LoginStatus, Refusal, transition},
        pool::PoolTerms,
    },
    failpoints::{
        Guard::{self, *},
        holds,
    },
};

/// The guards that can be switched off.
const GUARDS: [Guard; 7] = [
    TokensAreCompared,
    PausedPoolsBeginNothing,
    PausedAccountsBeginNothing,
    RestingAccountsAreNotUsed,
    PlansTakeWhatFits,
    InactiveAccountsAreNotLeased,
    OpenRedemptionsKeepTheLease,
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
    let (mut account, mut event, mut pool) = (account.clone(), event.clone(), pool.clone());
    if !holds(TokensAreCompared) {
        use AccountEvent::{Begin, Release, Renew};
        if let Begin { token, .. } | Release { token } | Renew { token, .. } = &mut event {
            *token = account.token;
        }
    }
    pool.paused &= holds(PausedPoolsBeginNothing);
    account.paused &= holds(PausedAccountsBeginNothing);
    if !holds(InactiveAccountsAreNotLeased) {
        account.login_status = LoginStatus::Active;
    }
    if !holds(RestingAccountsAreNotUsed) {
        (account.day_due_at, account.cooldown_until, account.hold) = (None, None, None);
    }
    if !holds(OpenRedemptionsKeepTheLease) && matches!(event, AccountEvent::Expire { .. }) {
        account.open_redemption_id = None;
    }
    if !holds(PlansTakeWhatFits) {
        for terms in pool.plans.values_mut() {
            *terms = crate::domain::plan::Terms::up_to(i64::MAX);
        }
    }
    transition(&account, &event, &pool)
}
