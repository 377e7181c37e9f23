//! What people correct of an account's balance, and what a plan that wants more makes of a completed account.

use super::{
    Account, AccountStatus, Change, Guard, Next, PlanId, PoolTerms, Refusal, Resume, is_of_its_day,
};

/// Another balance than the recorded one, as a person saw it at the provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Correction {
    /// What the account has, in minor units.
    pub balance_minor: i64,
    /// What was recorded when the person compared.
    pub expected_minor: i64,
    /// Who says so, by their own word.
    pub corrected_by: String,
    /// Why.
    pub reason: String,
    /// What was seen.
    pub evidence: Option<String>,
}

/// A redemption brought another amount than what a person had said, nothing, or something after all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restatement {
    /// The version of the account that was read before the redemption: each change of the redemption's outcome changes
    /// the account, too.
    pub seen: i64,
    /// What is added to the balance, in minor units; less than 0: taken off.
    pub difference_minor: i64,
    /// The plan, and its day, on which the redemption was begun.
    pub begun_on: Option<(PlanId, i32)>,
    /// Who says so, by their own word.
    pub actor: String,
}

/// Gives the account the balance that a person saw, under any lease. Not while a redemption is open: nobody can tell
/// whether what the person saw has its amount. The balance is of no day, so the day's credit stays.
pub(super) fn correct(
    account: &Account,
    correction: &Correction,
    pool: &PoolTerms,
) -> Result<Change, Refusal> {
    if let Some(open) = account.open_redemption_id {
        return Err(Refusal::RedemptionOpen(open));
    }
    if account.balance_minor != correction.expected_minor {
        return Err(Refusal::BalanceChanged);
    }
    let difference_minor = correction.balance_minor - account.balance_minor;
    let next = with_balance(account, difference_minor, pool);
    Ok(Change::new(account, Guard::None, &correction.corrected_by, "balance_corrected", next))
}

/// Adds the difference that a corrected resolution makes, under any lease: the money is where it is.
pub(super) fn restate(
    account: &Account,
    restatement: &Restatement,
    pool: &PoolTerms,
) -> Result<Change, Refusal> {
    if account.version.number != restatement.seen {
        return Err(Refusal::ChangedSince);
    }
    let difference_minor = restatement.difference_minor;
    if account.balance_minor + difference_minor < 0 {
        return Err(Refusal::BalanceTooLow);
    }
    let mut next = with_balance(account, difference_minor, pool);
    if is_of_its_day(account, restatement.begun_on.as_ref()) {
        next.day_credited_minor = (account.day_credited_minor + difference_minor).max(0);
    }
    Ok(Change::new(account, Guard::None, &restatement.actor, "resolution_corrected", next))
}

/// A completed account whose plan wants more is free again. One under a lease that would give it back as completed is
/// given back as begun.
pub(super) fn reopen(account: &Account, actor: &str, pool: &PoolTerms) -> Result<Change, Refusal> {
    let is_completed = account.status == AccountStatus::Completed
        || account.resume == Some(Resume::Completed) && account.status == AccountStatus::Locking;
    if !is_completed {
        return Err(Refusal::NotCompleted);
    }
    let mut next = Next::of(account);
    if !reopen_where_it_wants_more(account, account.balance_minor, pool, &mut next) {
        return Err(Refusal::PlanIsFull);
    }
    Ok(Change::new(account, Guard::None, actor, "reopened", next))
}

/// The account with another balance: completed where its plan has enough with it, open again where it has not.
fn with_balance(account: &Account, difference_minor: i64, pool: &PoolTerms) -> Next {
    let balance_minor = account.balance_minor + difference_minor;
    let mut next = Next { credit_minor: difference_minor, ..Next::of(account) };
    if !reopen_where_it_wants_more(account, balance_minor, pool, &mut next) {
        complete_where_it_is_full(account, balance_minor, pool, &mut next);
    }
    next
}

/// Opens a completed account again whose plan wants more than this balance. Whether it does.
pub(super) fn reopen_where_it_wants_more(
    account: &Account,
    balance_minor: i64,
    pool: &PoolTerms,
    next: &mut Next,
) -> bool {
    let terms = account.plan_id.as_ref().and_then(|plan_id| pool.plans.get(plan_id));
    if terms.is_none_or(|terms| balance_minor >= terms.target_minor) {
        return false;
    }
    if next.status == AccountStatus::Completed {
        next.status = AccountStatus::Processing;
    }
    if next.resume == Some(Resume::Completed) {
        next.resume = Some(Resume::Processing);
    }
    true
}

/// A plan that a lease alone bound the account to, and that has brought nothing, is taken from it again: that one
/// completes nothing.
fn complete_where_it_is_full(
    account: &Account,
    balance_minor: i64,
    pool: &PoolTerms,
    next: &mut Next,
) {
    let terms = account.plan_id.as_ref().and_then(|plan_id| pool.plans.get(plan_id));
    let is_full = terms.is_some_and(|terms| balance_minor >= terms.target_minor);
    if !is_full || account.bound_by_lease {
        return;
    }
    if next.status == AccountStatus::Locking {
        next.resume = Some(Resume::Completed);
    } else {
        next.status = AccountStatus::Completed;
    }
}
