//! An account, as the database told it at a time.

use std::{collections::BTreeMap, time::Duration};

use time::OffsetDateTime;
use uuid::Uuid;

use super::status::{AccountStatus, LeaseEnd, LoginStatus, Rest, Resume};
use crate::domain::{
    hold::HoldCause,
    id::{AccountId, FencingToken, Holder, PlanId, PoolId, RedemptionId},
    lease::LeaseLoss,
    plan::Progress,
    principal::{Principal, RequestKey},
};

/// An account's labels, in the order of their keys.
pub type Labels = BTreeMap<String, String>;

/// Which change made a row what it is. A swap names both: numbers may repeat after a restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// Rises by one with each change.
    pub number: i64,
    /// The id of the change.
    pub change_id: Uuid,
}

/// An account, as it was at [`Account::as_of`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its pool.
    pub pool_id: PoolId,
    /// Its name.
    pub account_id: AccountId,
    /// Where it stands.
    pub status: AccountStatus,
    /// Whether the provider lets it in.
    pub login_status: LoginStatus,
    /// What it is being filled for.
    pub plan_id: Option<PlanId>,
    /// ISO 3166-1 alpha-2.
    pub country_code: Option<String>,
    /// What is in it, in minor units of the pool's currency.
    pub balance_minor: i64,
    /// For selectors.
    pub labels: Labels,
    /// The day of its plan that it is on, counted from 1.
    pub plan_day: i32,
    /// What was credited on that day, in minor units.
    pub day_credited_minor: i64,
    /// What its lease, or the redemption under it, is going to bring, in minor units.
    pub reserved_minor: Option<i64>,
    /// When its plan's next day begins.
    pub day_due_at: Option<OffsetDateTime>,
    /// Until when the pause between two redemptions lasts.
    pub cooldown_until: Option<OffsetDateTime>,
    /// Why it is on hold.
    pub hold: Option<Hold>,
    /// Nothing new is begun on it.
    pub paused: bool,
    /// Nothing new is leased on it.
    pub draining: bool,
    /// The token of the last acquisition.
    pub token: FencingToken,
    /// The status that it takes when its lease ends; of the last lease while it is free.
    pub resume: Option<Resume>,
    /// The lease that it is under.
    pub lease: Option<Lease>,
    /// How its last lease ended. `None` while it is under one.
    pub lease_end: Option<LeaseEnd>,
    /// Its lease bound it to its plan. It is unbound when the lease ends without a success.
    pub bound_by_lease: bool,
    /// The redemption whose outcome is not known yet.
    pub open_redemption_id: Option<RedemptionId>,
    /// Since when it has been idle.
    pub idle_since: OffsetDateTime,
    /// When it was created.
    pub created_at: OffsetDateTime,
    /// When it last changed.
    pub updated_at: OffsetDateTime,
    /// Its last change.
    pub version: Version,
    /// The database's time when it told this.
    pub as_of: OffsetDateTime,
}

/// An account that failed is not used for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Why.
    pub cause: HoldCause,
    /// Until when.
    pub until: OffsetDateTime,
    /// Failures in a row.
    pub count: i32,
}

/// A lease, as the database told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Who holds it, by its own word.
    pub holder: Holder,
    /// For which request it was acquired, and by whom.
    pub request: RequestKey,
    /// When it was acquired.
    pub acquired_at: OffsetDateTime,
    /// When it ends.
    pub expires_at: OffsetDateTime,
    /// Its release was asked for while a redemption was open.
    pub release_requested: bool,
}

/// An account to create.
#[derive(Clone, Debug)]
pub struct NewAccount {
    /// Its name.
    pub account_id: AccountId,
    /// Whether the provider lets it in.
    pub login_status: LoginStatus,
    /// What it is to be filled for.
    pub plan_id: Option<PlanId>,
    /// ISO 3166-1 alpha-2.
    pub country_code: Option<String>,
    /// What is in it already, in minor units.
    pub balance_minor: i64,
    /// For selectors.
    pub labels: Labels,
}

/// Which accounts a list is of.
#[derive(Clone, Debug, Default)]
pub struct AccountFilter {
    /// Only of this status.
    pub status: Option<AccountStatus>,
    /// Only of this login status.
    pub login_status: Option<LoginStatus>,
    /// Only of this plan.
    pub plan_id: Option<PlanId>,
    /// Only under a lease of this holder.
    pub holder: Option<Holder>,
    /// Only those that changed last at this time or later, by the database's clock.
    pub updated_from: Option<OffsetDateTime>,
    /// Only those that changed last before this time.
    pub updated_to: Option<OffsetDateTime>,
}

/// Which events of an account a list is of.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    /// Only at this time or later, by the database's clock.
    pub from: Option<OffsetDateTime>,
    /// Only before this time.
    pub to: Option<OffsetDateTime>,
    /// Only those of this reason.
    pub reason: Option<String>,
    /// Only those of this redemption.
    pub redemption_id: Option<RedemptionId>,
    /// Only those that this one made, by its own word: a holder, a person.
    pub actor: Option<String>,
}

/// A change of an account, as it was kept.
#[derive(Clone, Debug)]
pub struct RecordedEvent {
    /// Rises by one with each change.
    pub version: i64,
    /// When.
    pub happened_at: OffsetDateTime,
    /// Who, by its own word.
    pub actor: String,
    /// Who, as authentication found it.
    pub principal: Principal,
    /// Why.
    pub reason: String,
    /// The status before; none for the first event.
    pub from_status: Option<AccountStatus>,
    /// The status after.
    pub to_status: AccountStatus,
    /// The fencing token after.
    pub token: FencingToken,
    /// The redemption concerned.
    pub redemption_id: Option<RedemptionId>,
    /// The balance after, in minor units.
    pub balance_minor: i64,
    /// When the lease would end after this change.
    pub lease_expires_at: Option<OffsetDateTime>,
}

/// What became of a call under a lease.
#[derive(Clone, Debug)]
pub enum LeaseAnswer {
    /// It was done.
    Done(Account),
    /// The lease is not the caller's any more. With the account as it is.
    Lost(LeaseLoss, Account),
    /// The lease is another caller's.
    OtherPrincipal,
    /// There is no such account.
    NoAccount,
    /// There is no such pool.
    NoPool,
}

impl Account {
    /// How far it is in its plan.
    pub fn progress(&self) -> Progress {
        Progress {
            balance_minor: self.balance_minor,
            day: self.plan_day,
            day_credited_minor: self.day_credited_minor,
        }
    }

    /// It is not picked, and nothing is redeemed into it, before this time.
    pub fn available_at(&self) -> Option<OffsetDateTime> {
        let hold = self.hold.map(|hold| hold.until);
        [self.day_due_at, self.cooldown_until, hold].into_iter().flatten().max()
    }

    /// Why it may not be used yet, and for how long.
    pub fn rest(&self) -> Option<(Rest, Duration)> {
        let until = self.available_at().filter(|until| *until > self.as_of)?;
        let cause = match () {
            () if self.hold.is_some_and(|hold| hold.until == until) => Rest::Hold,
            () if self.day_due_at == Some(until) => Rest::NextDay,
            () => Rest::Cooldown,
        };
        Some((cause, Duration::try_from(until - self.as_of).unwrap_or_default()))
    }

    /// What remained of its lease when the database told it; nothing without one.
    pub fn lease_remaining(&self) -> Duration {
        let remaining = self.lease.as_ref().map(|lease| lease.expires_at - self.as_of);
        remaining.and_then(|left| Duration::try_from(left).ok()).unwrap_or_default()
    }

    /// Why the lease of `token` is not its holder's any more; `None` when it is.
    pub fn lease_loss(&self, token: FencingToken) -> Option<LeaseLoss> {
        // A token above the account's was never issued here: its holder lost it with the data.
        if self.token != token {
            return Some(LeaseLoss::TakenOver);
        }
        match &self.lease {
            None if self.lease_end == Some(LeaseEnd::Expired) => Some(LeaseLoss::Expired),
            None => Some(LeaseLoss::Released),
            Some(lease) if lease.release_requested => Some(LeaseLoss::Released),
            Some(lease) => (lease.expires_at <= self.as_of).then_some(LeaseLoss::Expired),
        }
    }
}
