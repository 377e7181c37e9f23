//! The account's state machine, on one page.
//!
//! ```text
//!               acquire                        redeem succeeded: resume := PROCESSING
//!  WAITING ───────────────┐                    (COMPLETED when the plan's target is reached,
//!                         │                    WAITING when its day is and another comes)
//!                         ▼                    redeem failed:    resume unchanged
//!                     LOCKING ── release / expire ──▶ resume status
//!                         ▲                              WAITING | PROCESSING | COMPLETED
//!  PROCESSING ────────────┘ acquire
//! ```
//!
//! [`transition`] decides every change of an account, and is what runs. It takes the account as it was told at a
//! version, and the terms of its pool. The store writes the [`Change`] where that version still is the account's
//! (`store/sql/account/apply.sql`, `store/sql/redemption/begin.sql`). Whatever depends on the time is decided by the time at which
//! the database told the account. The change has it as a [`Guard`], which the database checks by its own clock.

mod change;
mod corrected;
mod entity;
mod refusal;
mod status;

use std::{cmp::min, time::Duration};

pub use self::{
    change::{Change, Guard, NewLease, Next, Until},
    corrected::{Correction, Restatement},
    entity::{
        Account, AccountFilter, EventFilter, Hold, Labels, Lease, LeaseAnswer, NewAccount,
        RecordedEvent, Version,
    },
    refusal::Refusal,
    status::{AccountStatus, LeaseEnd, LoginStatus, Rest, Resume},
};
pub use super::hold::HoldCause;
use super::{
    id::{FencingToken, Holder, PlanId, RedemptionId},
    lease::LeaseLoss,
    plan::{Filled, Terms},
    pool::PoolTerms,
    principal::{Authority, Principal, RequestKey},
};

/// What can happen to an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccountEvent {
    /// Somebody wants a lease.
    Acquire(Wanted),
    /// The holder wants the lease to end this time from now.
    Renew {
        /// The lease.
        token: FencingToken,
        /// How long it is to last.
        ttl: Duration,
        /// Who calls.
        by: Principal,
    },
    /// The holder begins a redemption.
    Begin {
        /// The lease.
        token: FencingToken,
        /// Who calls.
        by: Principal,
        /// The redemption.
        redemption_id: RedemptionId,
        /// What it is expected to bring, in minor units.
        expected_minor: Option<i64>,
    },
    /// The redemption's outcome is known.
    Settle(Settle),
    /// The holder gives the account back, or an operator ends another's lease.
    Release {
        /// The lease.
        token: FencingToken,
        /// Who calls.
        by: Authority,
    },
    /// Somebody found that the lease's time has passed.
    Expire {
        /// Who.
        actor: String,
    },
    /// The provider credited what was recorded as failed before.
    CreditLate {
        /// How much, in minor units.
        amount_minor: i64,
        /// The plan, and its day, on which the redemption was begun.
        begun_on: Option<(PlanId, i32)>,
        /// Who found out.
        actor: String,
    },
    /// What a redemption brought was taken back.
    Reverse {
        /// How much, in minor units.
        amount_minor: i64,
        /// The plan, and its day, on which the redemption was begun.
        begun_on: Option<(PlanId, i32)>,
        /// Who found out, or asked for it.
        actor: String,
        /// Who calls, where a person says so.
        by: Option<Authority>,
    },
    /// A person changes it.
    Update(Box<AccountChange>, Authority),
    /// A person found another balance at the provider than the recorded one.
    Correct(Box<Correction>, Authority),
    /// A person corrected what a person had said of a redemption.
    Restate(Restatement, Authority),
    /// Its plan wants more than what it was completed with.
    Reopen {
        /// Who found out.
        actor: String,
    },
    /// Its day has nothing left to take.
    EndDay {
        /// Who found out.
        actor: String,
    },
}

/// A lease that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The idempotency key, and whose it is.
    pub request: RequestKey,
    /// Who asks, by its own word.
    pub holder: Holder,
    /// How long the lease is to last.
    pub ttl: Duration,
    /// The plan to which an account is bound that has none.
    pub plan_id: Option<PlanId>,
    /// The amount that the account's plan must take now, in minor units; any when not known.
    pub expected_minor: Option<i64>,
    /// What the account's plan must still want today, at the least, in minor units.
    pub min_headroom_minor: Option<i64>,
    /// The redemption that is begun with the lease, in the same change, if one is. It is expected to bring
    /// `expected_minor`.
    pub begins: Option<RedemptionId>,
}

/// A redemption's outcome, as far as it concerns the account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settle {
    /// The redemption.
    pub redemption_id: RedemptionId,
    /// Whether the provider credited the card.
    pub outcome: SettleOutcome,
    /// The holder wanted the lease to end with the redemption.
    pub release: bool,
    /// Who settles.
    pub actor: String,
    /// Who calls, where a person says so.
    pub by: Option<Authority>,
}

/// See [`Settle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettleOutcome {
    /// Credited.
    Succeeded {
        /// How much, in minor units.
        amount_minor: i64,
    },
    /// Not credited.
    Failed {
        /// What is wrong with the account, where that is why.
        hold: Option<HoldCause>,
    },
}

/// What a person changes of an account. The inner `None` clears.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountChange {
    /// See [`Account`].
    pub login_status: Option<LoginStatus>,
    /// See [`Account`]. Not while the account is `LOCKING`.
    pub plan_id: Option<Option<PlanId>>,
    /// See [`Account`].
    pub country_code: Option<Option<String>>,
    /// See [`Account`].
    pub labels: Option<Labels>,
    /// See [`Account`].
    pub paused: Option<bool>,
    /// See [`Account`].
    pub draining: Option<bool>,
    /// Ends a hold, and the count of failures.
    pub lift_hold: bool,
}

/// Who appears in the events of changes that come over the API without a holder's name.
const API_ACTOR: &str = "api";

/// What becomes of an account when an event happens to it, or why it cannot happen.
pub fn transition(
    account: &Account,
    event: &AccountEvent,
    pool: &PoolTerms,
) -> Result<Change, Refusal> {
    match event {
        AccountEvent::Acquire(wanted) => acquire(account, wanted, pool),
        AccountEvent::Renew { token, ttl, by } => {
            let lease = held(account, *token, by)?;
            let next = Next { lease_for: Some(*ttl), ..Next::of(account) };
            Ok(Change::new(account, Guard::LeaseAlive, &lease.holder, "renewed", next).by(by))
        }
        AccountEvent::Begin { token, by, redemption_id, expected_minor } => {
            let lease = held(account, *token, by)?;
            begin(account, lease, *redemption_id, *expected_minor, pool).map(|change| change.by(by))
        }
        AccountEvent::Settle(settle) => {
            settled(account, settle, pool).map(|change| change.by_person(settle.by.as_ref()))
        }
        AccountEvent::Release { token, by } => {
            release(account, *token, by).map(|change| change.by(&by.principal))
        }
        AccountEvent::Expire { actor } => expire(account, actor),
        // Facts are not fenced, and move nothing but the money.
        AccountEvent::CreditLate { amount_minor, begun_on, actor } => {
            let mut next = Next { credit_minor: *amount_minor, ..Next::of(account) };
            next.day_credited_minor +=
                if is_of_its_day(account, begun_on.as_ref()) { *amount_minor } else { 0 };
            Ok(Change::new(account, Guard::None, actor, "credited_late", next))
        }
        AccountEvent::Reverse { amount_minor, begun_on, actor, by } => {
            let next = taken_back(account, *amount_minor, begun_on.as_ref(), pool)?;
            let change = Change::new(account, Guard::None, actor, "reversed", next);
            Ok(change.by_person(by.as_ref()))
        }
        AccountEvent::Update(change, by) => {
            update(account, change, pool).map(|change| change.by(&by.principal))
        }
        AccountEvent::Correct(correction, by) => {
            corrected::correct(account, correction, pool).map(|change| change.by(&by.principal))
        }
        AccountEvent::Restate(restatement, by) => {
            corrected::restate(account, restatement, pool).map(|change| change.by(&by.principal))
        }
        AccountEvent::Reopen { actor } => corrected::reopen(account, actor, pool),
        AccountEvent::EndDay { actor } => end_day(account, actor, pool),
    }
}

fn acquire(account: &Account, wanted: &Wanted, pool: &PoolTerms) -> Result<Change, Refusal> {
    let open = match account.status {
        _ if pool.paused => return Err(Refusal::PoolPaused),
        _ if pool.draining => return Err(Refusal::PoolDraining),
        AccountStatus::Locking => return Err(Refusal::AlreadyLocked),
        AccountStatus::Completed => return Err(Refusal::Completed),
        _ if account.login_status != LoginStatus::Active => return Err(Refusal::Inactive),
        _ if account.paused => return Err(Refusal::Paused),
        _ if account.draining => return Err(Refusal::Draining),
        open => open,
    };
    let plan_id = account.plan_id.as_ref().or(wanted.plan_id.as_ref());
    fits(account, plan_id, wanted.expected_minor, wanted.min_headroom_minor, pool)?;
    if let Some((cause, left)) = account.rest() {
        return Err(Refusal::Resting { cause, left });
    }
    let lease = NewLease { holder: wanted.holder.clone(), request: wanted.request.clone() };
    let next = Next {
        status: AccountStatus::Locking,
        resume: Resume::of(open),
        token: FencingToken(account.token.0 + 1),
        lease: Some(lease),
        lease_for: Some(wanted.ttl),
        lease_end: None,
        plan_id: plan_id.cloned(),
        bound_by_lease: account.plan_id.is_none() && plan_id.is_some(),
        reserved_minor: wanted.expected_minor,
        // What `begin` asks of an account under a lease is asked above of one that is free.
        open_redemption_id: wanted.begins,
        ..Next::of(account)
    };
    let change = Change::new(account, Guard::Usable, &wanted.holder, "acquired", next);
    Ok(change.by(&wanted.request.principal))
}

fn begin(
    account: &Account,
    lease: &Lease,
    redemption_id: RedemptionId,
    expected_minor: Option<i64>,
    pool: &PoolTerms,
) -> Result<Change, Refusal> {
    if let Some(open) = account.open_redemption_id {
        return Err(Refusal::RedemptionOpen(open));
    }
    if pool.paused {
        return Err(Refusal::PoolPaused);
    }
    if account.paused {
        return Err(Refusal::Paused);
    }
    if let Some((cause, left)) = account.rest() {
        return Err(Refusal::Resting { cause, left });
    }
    fits(account, account.plan_id.as_ref(), expected_minor, None, pool)?;
    let next = Next {
        open_redemption_id: Some(redemption_id),
        reserved_minor: expected_minor.or(account.reserved_minor),
        ..Next::of(account)
    };
    Ok(Change::new(account, Guard::LeaseAlive, &lease.holder, "redeem_begun", next))
}

/// A settled redemption sets the status to go back to, and ends the lease if that was asked for or is due.
fn settled(account: &Account, settle: &Settle, pool: &PoolTerms) -> Result<Change, Refusal> {
    let lease = match &account.lease {
        Some(lease) if account.open_redemption_id == Some(settle.redemption_id) => lease,
        _ => return Err(Refusal::RedemptionNotOpen),
    };
    let terms = account.plan_id.as_ref().and_then(|plan_id| pool.plans.get(plan_id));
    let mut next = Next {
        open_redemption_id: None,
        release_requested: false,
        reserved_minor: None,
        cooldown: Until::after(terms.map(|terms| terms.redemption_interval)),
        goes_idle: true,
        ..Next::of(account)
    };
    let reason = match settle.outcome {
        SettleOutcome::Succeeded { amount_minor } => {
            succeed(account, amount_minor, terms, &mut next);
            "redeemed"
        }
        SettleOutcome::Failed { hold } => {
            if let Some(cause) = hold {
                fail(account, cause, pool, &mut next);
            }
            "redeem_failed"
        }
    };
    let is_released = settle.release || lease.release_requested;
    let is_over = lease.expires_at <= account.as_of;
    let guard = match (is_released, is_over) {
        (true, _) => Guard::None,
        (false, true) => Guard::LeaseEnded,
        (false, false) => Guard::LeaseAlive,
    };
    match (is_released, is_over) {
        (true, _) => end_lease(&mut next, LeaseEnd::Released),
        (false, true) => end_lease(&mut next, LeaseEnd::Expired),
        (false, false) => {}
    }
    Ok(Change::new(account, guard, &settle.actor, reason, next))
}

fn succeed(account: &Account, amount_minor: i64, terms: Option<&Terms>, next: &mut Next) {
    next.credit_minor = amount_minor;
    next.bound_by_lease = false;
    (next.hold, next.hold_cause, next.hold_count) = (Until::NEVER, None, 0);
    let Some(terms) = terms else {
        next.resume = Some(Resume::Processing);
        return;
    };
    let (progress, filled) = terms.credit(&account.progress(), amount_minor);
    next.resume = Some(Resume::after(filled));
    next.plan_day = progress.day;
    next.day_credited_minor = progress.day_credited_minor;
    if filled == Filled::Day {
        next.day_due = Until::In(terms.day_interval);
    }
}

/// Whether a credit belongs to the day that the account is on. The one on which it was begun may be long past, or be
/// another plan's.
fn is_of_its_day(account: &Account, begun_on: Option<&(PlanId, i32)>) -> bool {
    begun_on.is_some_and(|(plan_id, day)| {
        account.plan_id.as_ref() == Some(plan_id) && account.plan_day == *day
    })
}

/// The account without what a redemption brought, under any lease: the provider has taken it back already. A plan
/// that was full wants more again; days that have passed stay as they were.
fn taken_back(
    account: &Account,
    amount_minor: i64,
    begun_on: Option<&(PlanId, i32)>,
    pool: &PoolTerms,
) -> Result<Next, Refusal> {
    let balance_minor = account.balance_minor - amount_minor;
    if balance_minor < 0 {
        return Err(Refusal::BalanceTooLow);
    }
    let mut next = Next { credit_minor: -amount_minor, ..Next::of(account) };
    if is_of_its_day(account, begun_on) {
        // A person may have begun the plan anew since: then the day has less of it, or nothing.
        next.day_credited_minor = (account.day_credited_minor - amount_minor).max(0);
    }
    corrected::reopen_where_it_wants_more(account, balance_minor, pool, &mut next);
    Ok(next)
}

/// The failure was the account's own: it is on hold, for twice as long each time in a row.
fn fail(account: &Account, cause: HoldCause, pool: &PoolTerms, next: &mut Next) {
    let before = account.hold.map_or(0, |hold| hold.count);
    let doublings = u32::try_from(before).unwrap_or(0).min(20);
    let hold = pool.holds.of(cause).saturating_mul(1 << doublings);
    next.hold = Until::In(min(hold, pool.holds.longest));
    next.hold_cause = Some(cause);
    next.hold_count = before + 1;
    if cause == HoldCause::LoginInvalid {
        next.login_status = LoginStatus::Invalid;
    }
}

fn release(account: &Account, token: FencingToken, by: &Authority) -> Result<Change, Refusal> {
    let lease = match (&account.lease, account.lease_loss(token)) {
        // Asked for again, or after the lease's time: it ends, or is to end, all the same.
        (Some(lease), None | Some(LeaseLoss::Expired | LeaseLoss::Released)) => lease,
        (None, None) => return Err(Refusal::NotLocked),
        (_, Some(loss)) => return Err(Refusal::LeaseLost(loss)),
    };
    if !by.may_end_others {
        is_of(lease, &by.principal)?;
    }
    let mut next = Next::of(account);
    let reason = if account.open_redemption_id.is_some() {
        next.release_requested = true;
        next.goes_idle = true;
        "release_requested"
    } else {
        end_lease(&mut next, LeaseEnd::Released);
        "released"
    };
    Ok(Change::new(account, Guard::None, &lease.holder, reason, next))
}

fn expire(account: &Account, actor: &str) -> Result<Change, Refusal> {
    let lease = account.lease.as_ref().ok_or(Refusal::NotLocked)?;
    if let Some(open) = account.open_redemption_id {
        return Err(Refusal::RedemptionOpen(open));
    }
    if lease.expires_at > account.as_of {
        return Err(Refusal::LeaseAlive);
    }
    let mut next = Next::of(account);
    end_lease(&mut next, LeaseEnd::Expired);
    Ok(Change::new(account, Guard::LeaseEnded, actor, "expired", next))
}

/// Gives the account the status to go back to. A plan that it was bound to without a success is taken from it.
fn end_lease(next: &mut Next, end: LeaseEnd) {
    next.status = next.resume.map_or(AccountStatus::Waiting, Resume::status);
    next.lease_end = Some(end);
    next.reserved_minor = None;
    next.goes_idle = true;
    if next.bound_by_lease {
        next.bound_by_lease = false;
        next.set_plan(None);
    }
}

fn update(account: &Account, change: &AccountChange, pool: &PoolTerms) -> Result<Change, Refusal> {
    let mut next = Next::of(account);
    if let Some(plan_id) = &change.plan_id {
        if account.status == AccountStatus::Locking {
            return Err(Refusal::AlreadyLocked);
        }
        if *plan_id != account.plan_id {
            let terms = match plan_id {
                Some(plan_id) => Some(pool.plans.get(plan_id).ok_or(Refusal::NoPlan)?),
                None => None,
            };
            let is_full = terms.is_some_and(|terms| account.balance_minor >= terms.target_minor);
            next.status = match account.status {
                _ if is_full => AccountStatus::Completed,
                AccountStatus::Completed => AccountStatus::Waiting,
                status => status,
            };
            next.set_plan(plan_id.clone());
        }
    }
    if change.lift_hold {
        (next.hold, next.hold_cause, next.hold_count) = (Until::NEVER, None, 0);
    }
    next.login_status = change.login_status.unwrap_or(account.login_status);
    next.paused = change.paused.unwrap_or(account.paused);
    next.draining = change.draining.unwrap_or(account.draining);
    if let Some(country_code) = &change.country_code {
        next.country_code.clone_from(country_code);
    }
    next.labels.clone_from(&change.labels);
    Ok(Change::new(account, Guard::None, API_ACTOR, "updated", next))
}

/// The day of a free account ends when its plan's terms leave nothing to take on it. What a redemption ends,
/// [`settled`] ends.
fn end_day(account: &Account, actor: &str, pool: &PoolTerms) -> Result<Change, Refusal> {
    match account.status {
        AccountStatus::Locking => return Err(Refusal::AlreadyLocked),
        AccountStatus::Completed => return Err(Refusal::Completed),
        AccountStatus::Waiting | AccountStatus::Processing => {}
    }
    let plan_id = account.plan_id.as_ref().ok_or(Refusal::NoPlan)?;
    let terms = pool.plans.get(plan_id).ok_or(Refusal::NoPlan)?;
    // One day, one interval: a day that is not due yet has not begun.
    let is_due = account.day_due_at.is_none_or(|due| due <= account.as_of);
    if !is_due || !terms.is_day_over(&account.progress()) {
        return Err(Refusal::DayNotOver);
    }
    let next = Next {
        status: AccountStatus::Waiting,
        plan_day: account.plan_day + 1,
        day_credited_minor: 0,
        day_due: Until::In(terms.day_interval),
        ..Next::of(account)
    };
    Ok(Change::new(account, Guard::DayDue, actor, "day_ended", next))
}

/// The lease of `token`, while it lasts, of the one who calls.
fn held<'a>(
    account: &'a Account,
    token: FencingToken,
    by: &Principal,
) -> Result<&'a Lease, Refusal> {
    // Whose it is comes first: nobody else learns more of it.
    if let Some(lease) = account.lease.as_ref().filter(|_| account.token == token) {
        is_of(lease, by)?;
    }
    match (&account.lease, account.lease_loss(token)) {
        (Some(lease), None) => Ok(lease),
        (_, Some(loss)) => Err(Refusal::LeaseLost(loss)),
        (None, None) => Err(Refusal::NotLocked),
    }
}

/// A lease is used by the one that acquired it alone. One that nobody in particular acquired is anybody's.
fn is_of(lease: &Lease, by: &Principal) -> Result<(), Refusal> {
    if by.may_use(&lease.request.principal) { Ok(()) } else { Err(Refusal::OtherPrincipal) }
}

/// Whether the plan takes a card of this amount now, without an amount any card, and still wants so much today.
fn fits(
    account: &Account,
    plan_id: Option<&PlanId>,
    expected_minor: Option<i64>,
    min_headroom_minor: Option<i64>,
    pool: &PoolTerms,
) -> Result<(), Refusal> {
    let Some(plan_id) = plan_id else { return Ok(()) };
    let terms = pool.plans.get(plan_id).ok_or(Refusal::NoPlan)?;
    let progress = account.progress();
    match terms.misfit_for(&progress, expected_minor, min_headroom_minor) {
        None => Ok(()),
        Some(misfit) => Err(Refusal::DoesNotFit {
            plan_id: plan_id.clone(),
            misfit,
            headroom_minor: terms.headroom(&progress),
            day_headroom_minor: terms.room(&progress),
        }),
    }
}

#[cfg(test)]
mod tests;
