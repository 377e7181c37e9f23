//! Accounts, leases and events as messages.

use std::collections::HashMap;

use crate::{
    domain::{
        account::{Account, AccountStatus, Hold, HoldCause, Lease, LoginStatus, RecordedEvent},
        id::{AccountId, PlanId},
        money::Currency,
        pool::Pool,
    },
    rpc::{
        convert::{self, timestamp},
        pb,
    },
};

pub(super) fn read_status(status: pb::AccountStatus) -> Option<AccountStatus> {
    match status {
        pb::AccountStatus::Unspecified => None,
        pb::AccountStatus::Waiting => Some(AccountStatus::Waiting),
        pb::AccountStatus::Processing => Some(AccountStatus::Processing),
        pb::AccountStatus::Locking => Some(AccountStatus::Locking),
        pb::AccountStatus::Completed => Some(AccountStatus::Completed),
    }
}

pub(super) fn read_login_status(status: pb::LoginStatus) -> Option<LoginStatus> {
    match status {
        pb::LoginStatus::Unspecified => None,
        pb::LoginStatus::Active => Some(LoginStatus::Active),
        pb::LoginStatus::Inactive => Some(LoginStatus::Inactive),
        pb::LoginStatus::Invalid => Some(LoginStatus::Invalid),
    }
}

fn status_message(status: AccountStatus) -> i32 {
    match status {
        AccountStatus::Waiting => pb::AccountStatus::Waiting,
        AccountStatus::Processing => pb::AccountStatus::Processing,
        AccountStatus::Locking => pb::AccountStatus::Locking,
        AccountStatus::Completed => pb::AccountStatus::Completed,
    }
    .into()
}

fn login_status_message(status: LoginStatus) -> i32 {
    match status {
        LoginStatus::Active => pb::LoginStatus::Active,
        LoginStatus::Inactive => pb::LoginStatus::Inactive,
        LoginStatus::Invalid => pb::LoginStatus::Invalid,
    }
    .into()
}

pub(in crate::rpc) fn account_message(account: &Account, currency: Currency) -> pb::Account {
    pb::Account {
        pool_id: account.pool_id.to_string(),
        account_id: account.account_id.to_string(),
        status: status_message(account.status),
        login_status: login_status_message(account.login_status),
        plan_id: account.plan_id.as_ref().map(PlanId::to_string).unwrap_or_default(),
        country_code: account.country_code.clone().unwrap_or_default(),
        balance: Some(convert::money(account.balance_minor, currency)),
        labels: account.labels.clone().into_iter().collect(),
        lease: account.lease.as_ref().map(|lease| lease_message(account, lease)),
        open_redemption_id: account.open_redemption_id.map(|id| id.to_string()).unwrap_or_default(),
        create_time: Some(timestamp(account.created_at)),
        update_time: Some(timestamp(account.updated_at)),
        plan_day: account.plan_day,
        day_credited: Some(convert::money(account.day_credited_minor, currency)),
        reserved: account.reserved_minor.map(|amount| convert::money(amount, currency)),
        available_time: account.available_at().map(timestamp),
        hold: account.hold.as_ref().map(hold_message),
        paused: Some(account.paused),
        draining: Some(account.draining),
        // Write only.
        credentials: HashMap::new(),
    }
}

fn hold_message(hold: &Hold) -> pb::AccountHold {
    pb::AccountHold {
        cause: match hold.cause {
            HoldCause::LoginInvalid => pb::HoldCause::LoginInvalid,
            HoldCause::LimitReached => pb::HoldCause::LimitReached,
            HoldCause::Throttled => pb::HoldCause::Throttled,
        }
        .into(),
        expire_time: Some(timestamp(hold.until)),
        count: hold.count,
    }
}

pub(in crate::rpc) fn lease_message(account: &Account, lease: &Lease) -> pb::Lease {
    pb::Lease {
        r#ref: Some(pb::LeaseRef {
            pool_id: account.pool_id.to_string(),
            account_id: account.account_id.to_string(),
            fencing_token: account.token.0,
        }),
        holder: lease.holder.to_string(),
        principal: lease.request.principal.to_string(),
        acquire_time: Some(timestamp(lease.acquired_at)),
        expire_time: Some(timestamp(lease.expires_at)),
        remaining: Some(convert::duration(account.lease_remaining())),
    }
}

pub(super) fn event_message(
    event: &RecordedEvent,
    pool: &Pool,
    account_id: &AccountId,
) -> pb::AccountEvent {
    pb::AccountEvent {
        pool_id: pool.pool_id.to_string(),
        account_id: account_id.to_string(),
        version: event.version,
        event_time: Some(timestamp(event.happened_at)),
        actor: event.actor.clone(),
        principal: event.principal.to_string(),
        reason: event.reason.clone(),
        from_status: event.from_status.map_or(0, status_message),
        to_status: status_message(event.to_status),
        fencing_token: event.token.0,
        redemption_id: event.redemption_id.map(|id| id.to_string()).unwrap_or_default(),
        balance: Some(convert::money(event.balance_minor, pool.currency)),
        lease_expire_time: event.lease_expires_at.map(timestamp),
    }
}
