//! Accounts: how they are stored, read, created and changed by people. Leases on them are in
//! [`super::lease`].

use std::collections::HashMap;

use serde_json::json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Store, StoreError,
    audit::{self, Written},
    page::{MAX_BYTES, read_page},
    patience::read_patiently,
    pg::error::{is_foreign_key_violation, is_of_a_row},
    quarantine::{Halves, by_halves, count_skipped},
};
pub use crate::domain::account::{Account, AccountChange, Labels, NewAccount};
use crate::domain::{
    account::{
        AccountFilter, AccountStatus, EventFilter, Hold, HoldCause, Lease, LeaseEnd, LoginStatus,
        RecordedEvent, Resume,
    },
    id::{AccountId, FencingToken, Holder, PlanId, PoolId, RedemptionId, RequestId},
    page::Page,
    principal::{Authority, Principal, RequestKey},
};

/// An account to create, and its credentials as they are stored.
#[derive(Clone, Debug)]
pub struct Creation {
    /// The account.
    pub account: NewAccount,
    /// Encrypted; `None` when it has none.
    pub credentials: Option<Vec<u8>>,
}

/// What became of accounts that were to be created.
#[derive(Debug)]
pub struct Inserted {
    /// Those that were.
    pub accounts: Vec<Account>,
    /// Those that the database refused, and why.
    pub refused: HashMap<AccountId, StoreError>,
}

/// Who appears in the events of accounts that come over the API.
const API_ACTOR: &str = "api";

/// Declares the row of a statement that answers with accounts: the columns that all of them share,
/// and those of its own.
macro_rules! account_row {
    ($name:ident { $($own:ident: $type:ty),* }) => {
        pub(super) struct $name {
            $(pub(super) $own: $type,)*
            pub(super) account_id: String,
            pub(super) status: String,
            pub(super) login_status: String,
            pub(super) plan_id: Option<String>,
            pub(super) country_code: Option<String>,
            pub(super) balance_minor: i64,
            pub(super) labels: serde_json::Value,
            pub(super) plan_day: i32,
            pub(super) day_credited_minor: i64,
            pub(super) reserved_minor: Option<i64>,
            pub(super) day_due_at: Option<time::OffsetDateTime>,
            pub(super) cooldown_until: Option<time::OffsetDateTime>,
            pub(super) hold_until: Option<time::OffsetDateTime>,
            pub(super) hold_cause: Option<String>,
            pub(super) hold_count: i32,
            pub(super) paused: bool,
            pub(super) draining: bool,
            pub(super) fencing_token: i64,
            pub(super) resume_status: Option<String>,
            pub(super) holder: Option<String>,
            pub(super) lease_principal: String,
            pub(super) lease_request_id: Option<String>,
            pub(super) lease_acquired_at: Option<time::OffsetDateTime>,
            pub(super) lease_expires_at: Option<time::OffsetDateTime>,
            pub(super) lease_end: Option<String>,
            pub(super) bound_by_lease: bool,
            pub(super) release_requested: bool,
            pub(super) open_redemption_id: Option<uuid::Uuid>,
            pub(super) idle_since: time::OffsetDateTime,
            pub(super) version: i64,
            pub(super) change_id: uuid::Uuid,
            pub(super) created_at: time::OffsetDateTime,
            pub(super) updated_at: time::OffsetDateTime,
            pub(super) db_now: time::OffsetDateTime,
        }

        impl $name {
            pub(super) fn account(
                &self,
                pool_id: &$crate::domain::id::PoolId,
            ) -> Result<$crate::domain::account::Account, $crate::store::StoreError> {
                use $crate::{
                    domain::account::{Account, Version},
                    store::account as stored,
                };
                let status = stored::read_status(&self.status)?;
                Ok(Account {
                    pool_id: pool_id.clone(),
                    account_id: stored::read_account_id(&self.account_id)?,
                    status,
                    login_status: stored::read_login_status(&self.login_status)?,
                    plan_id: self.plan_id.as_deref().map(stored::read_plan_id).transpose()?,
                    country_code: self.country_code.clone(),
                    balance_minor: self.balance_minor,
                    labels: stored::read_labels(&self.labels),
                    plan_day: self.plan_day,
                    day_credited_minor: self.day_credited_minor,
                    reserved_minor: self.reserved_minor,
                    day_due_at: self.day_due_at,
                    cooldown_until: self.cooldown_until,
                    hold: stored::read_hold(
                        self.hold_cause.as_deref(),
                        self.hold_until,
                        self.hold_count,
                    )?,
                    paused: self.paused,
                    draining: self.draining,
                    token: $crate::domain::id::FencingToken(self.fencing_token),
                    resume: self.resume_status.as_deref().map(stored::read_resume).transpose()?,
                    lease: stored::read_lease(
                        status,
                        self.holder.as_deref(),
                        &self.lease_principal,
                        self.lease_request_id.as_deref(),
                        self.lease_acquired_at.zip(self.lease_expires_at),
                        self.release_requested,
                    )?,
                    lease_end: self.lease_end.as_deref().map(stored::read_lease_end).transpose()?,
                    bound_by_lease: self.bound_by_lease,
                    open_redemption_id: self
                        .open_redemption_id
                        .map($crate::domain::id::RedemptionId),
                    idle_since: self.idle_since,
                    created_at: self.created_at,
                    updated_at: self.updated_at,
                    version: Version { number: self.version, change_id: self.change_id },
                    as_of: self.db_now,
                })
            }
        }
    };
}
account_row!(AccountRow {});
account_row!(ListedRow { more: bool });

/// How many accounts are read first for a page. The statement measures each account that it may answer, also those for
/// which there is no room: by the first of them it is known about how many there is room for.
const FIRST_ROWS: i64 = 128;

impl ListedRow {
    /// About as many bytes as the statement counts.
    fn bytes(&self) -> i64 {
        let labels = self.labels.as_object().into_iter().flatten();
        let labels = labels.map(|(key, value)| key.len() + value.as_str().map_or(8, str::len) + 8);
        let holder = self.holder.as_ref().map_or(0, String::len);
        let bytes = self.account_id.len() + holder + 512 + labels.sum::<usize>();
        i64::try_from(bytes).unwrap_or(i64::MAX)
    }
}

/// Notes that an account's row is left out of an answer: it must not keep its neighbours from it.
pub(super) fn skip_unreadable(
    statement: &'static str,
    pool_id: &PoolId,
    account_id: &str,
    error: &StoreError,
) {
    count_skipped(statement);
    tracing::error!(statement, %pool_id, account_id, %error, "an account cannot be read; it is left out");
}

pub(super) fn read_account_id(text: &str) -> Result<AccountId, StoreError> {
    AccountId::stored(text).map_err(|_| StoreError::Unreadable("account_id"))
}

pub(super) fn read_plan_id(text: &str) -> Result<PlanId, StoreError> {
    PlanId::parse(text).map_err(|_| StoreError::Unreadable("accounts.plan_id"))
}

pub(super) fn read_status(text: &str) -> Result<AccountStatus, StoreError> {
    AccountStatus::parse(text).ok_or(StoreError::Unreadable("accounts.status"))
}

pub(super) fn read_login_status(text: &str) -> Result<LoginStatus, StoreError> {
    LoginStatus::parse(text).ok_or(StoreError::Unreadable("accounts.login_status"))
}

pub(super) fn read_hold(
    cause: Option<&str>,
    until: Option<OffsetDateTime>,
    count: i32,
) -> Result<Option<Hold>, StoreError> {
    let (Some(cause), Some(until)) = (cause, until) else { return Ok(None) };
    let cause = HoldCause::parse(cause).ok_or(StoreError::Unreadable("accounts.hold_cause"))?;
    Ok(Some(Hold { cause, until, count }))
}

/// Labels that are not text, as a person may have written them, are read as their JSON.
pub(super) fn read_labels(value: &serde_json::Value) -> Labels {
    let labels = value.as_object().into_iter().flatten();
    let text =
        |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    labels.map(|(key, value)| (key.clone(), text(value))).collect()
}

pub(super) fn read_resume(text: &str) -> Result<Resume, StoreError> {
    let resume = AccountStatus::parse(text).and_then(Resume::of);
    resume.ok_or(StoreError::Unreadable("accounts.resume_status"))
}

pub(super) fn read_lease_end(text: &str) -> Result<LeaseEnd, StoreError> {
    LeaseEnd::parse(text).ok_or(StoreError::Unreadable("accounts.lease_end"))
}

pub(super) fn read_lease(
    status: AccountStatus,
    holder: Option<&str>,
    principal: &str,
    request_id: Option<&str>,
    times: Option<(OffsetDateTime, OffsetDateTime)>,
    release_requested: bool,
) -> Result<Option<Lease>, StoreError> {
    if status != AccountStatus::Locking {
        return Ok(None);
    }
    let (Some(holder), Some(request_id), Some((acquired_at, expires_at))) =
        (holder, request_id, times)
    else {
        return Err(StoreError::Unreadable("accounts.holder"));
    };
    Ok(Some(Lease {
        holder: Holder::stored(holder).map_err(|_| StoreError::Unreadable("accounts.holder"))?,
        request: RequestKey::new(
            Principal::named(principal),
            RequestId::parse_any(request_id)
                .map_err(|_| StoreError::Unreadable("accounts.lease_request_id"))?,
        ),
        acquired_at,
        expires_at,
        release_requested,
    }))
}

pub(super) fn labels_json(labels: &Labels) -> serde_json::Value {
    let entry = |(key, value): (&String, &String)| (key.clone(), serde_json::Value::from(&**value));
    labels.iter().map(entry).collect()
}

struct EventRow {
    version: i64,
    happened_at: OffsetDateTime,
    actor: String,
    principal: String,
    reason: String,
    from_status: Option<String>,
    to_status: String,
    fencing_token: i64,
    redemption_id: Option<Uuid>,
    balance_minor: i64,
    lease_expires_at: Option<OffsetDateTime>,
}

impl EventRow {
    fn read(self) -> Result<RecordedEvent, StoreError> {
        Ok(RecordedEvent {
            version: self.version,
            happened_at: self.happened_at,
            actor: self.actor,
            principal: Principal::named(&self.principal),
            reason: self.reason,
            from_status: self.from_status.as_deref().map(read_status).transpose()?,
            to_status: read_status(&self.to_status)?,
            token: FencingToken(self.fencing_token),
            redemption_id: self.redemption_id.map(RedemptionId),
            balance_minor: self.balance_minor,
            lease_expires_at: self.lease_expires_at,
        })
    }
}

/// Says in the log what the audit trail has of an account that was created.
fn log_created(account: &Account, by: &Authority) {
    let after = json!({
        "login_status": account.login_status.as_str(),
        "plan_id": account.plan_id.as_ref().map(PlanId::as_str),
        "country_code": account.country_code,
        "balance_minor": account.balance_minor,
        "labels": labels_json(&account.labels),
    });
    let (pool_id, subject) = (account.pool_id.as_str(), account.account_id.as_str());
    let (action, before, after, reason) = ("CreateAccount", None, Some(after), "");
    audit::log_written(by, &Written { action, pool_id, subject, before, after, reason });
}

impl Store {
    /// Creates accounts. Each is recorded in the audit trail, but those of an import, which is recorded as a whole. Those that are there already, or that name a plan which is not, are not in
    /// the answer. One that the database refuses is named with its cause, and does not hold up the others.
    pub async fn insert_accounts(
        &self,
        pool_id: &PoolId,
        new: &[Creation],
        by: &Authority,
        is_import: bool,
    ) -> Result<Inserted, StoreError> {
        let all: Vec<_> = new.iter().collect();
        let (rows, bad) = match self.insert_rows(pool_id, &all, by, is_import).await {
            Err(error) if new.len() > 1 && is_of_a_row(&error) => {
                let insert = |some: Vec<_>| async move {
                    self.insert_rows(pool_id, &some, by, is_import).await
                };
                let Halves { done, bad, stopped } = by_halves(all, insert).await;
                if let Some(error) = stopped {
                    return Err(error.into());
                }
                (done, bad)
            }
            answered => (answered?, Vec::new()),
        };
        let read = |row: &AccountRow| {
            let account = row.account(pool_id);
            account
                .inspect_err(|error| skip_unreadable("import", pool_id, &row.account_id, error))
                .ok()
        };
        let refused = |(new, error): (&Creation, sqlx::Error)| {
            count_skipped("import");
            (new.account.account_id.clone(), StoreError::from(error))
        };
        let accounts: Vec<_> = rows.iter().filter_map(read).collect();
        accounts.iter().for_each(|account| self.ready.note(account));
        if !is_import {
            accounts.iter().for_each(|account| log_created(account, by));
        }
        Ok(Inserted { accounts, refused: bad.into_iter().map(refused).collect() })
    }

    async fn insert_rows(
        &self,
        pool_id: &PoolId,
        new: &[&Creation],
        by: &Authority,
        is_import: bool,
    ) -> Result<Vec<AccountRow>, sqlx::Error> {
        let credentials: Vec<_> = new.iter().map(|n| n.credentials.clone()).collect();
        let new: Vec<_> = new.iter().map(|n| &n.account).collect();
        let ids: Vec<_> = new.iter().map(|n| n.account_id.to_string()).collect();
        let logins: Vec<_> = new.iter().map(|n| n.login_status.as_str().to_owned()).collect();
        let plans: Vec<_> = new.iter().map(|n| n.plan_id.as_ref().map(PlanId::to_string)).collect();
        let countries: Vec<_> = new.iter().map(|n| n.country_code.clone()).collect();
        let balances: Vec<_> = new.iter().map(|n| n.balance_minor).collect();
        let labels: Vec<_> = new.iter().map(|n| labels_json(&n.labels)).collect();
        let insert = || {
            sqlx::query_file_as!(
                AccountRow,
                "src/store/sql/account/insert_accounts.sql",
                pool_id.as_str(),
                &ids,
                &logins,
                &plans as &[Option<String>],
                &countries as &[Option<String>],
                &balances,
                &labels,
                API_ACTOR,
                // Of no server: this one, too, reads by following what a call created that nobody waited for.
                Uuid::nil(),
                &credentials as &[Option<Vec<u8>>],
                by.principal.name(),
                by.peer(),
                !is_import,
            )
            .fetch_all(&self.rest)
        };
        match insert().await {
            // A plan or the pool was deleted meanwhile: its accounts are left out now.
            Err(error) if is_foreign_key_violation(&error) => insert().await,
            answered => answered,
        }
    }

    /// Reads an account.
    pub async fn get_account(
        &self,
        pool_id: &PoolId,
        account_id: &AccountId,
    ) -> Result<Option<Account>, StoreError> {
        let read = || {
            sqlx::query_file_as!(
                AccountRow,
                "src/store/sql/account/read_accounts.sql",
                pool_id.as_str(),
                &[account_id.to_string()],
                &[] as &[String],
                &[] as &[String],
            )
            .fetch_optional(&self.db)
        };
        read_patiently(read).await?.map(|row| row.account(pool_id)).transpose()
    }

    /// Lists the accounts of a pool after `after` (exclusive), at most `limit`.
    pub async fn list_accounts(
        &self,
        pool_id: &PoolId,
        filter: &AccountFilter,
        after: &str,
        limit: i64,
    ) -> Result<Page<Account>, StoreError> {
        let first = limit.min(FIRST_ROWS);
        let mut found = self.list_some(pool_id, filter, after, first, MAX_BYTES).await?;
        let is_full = i64::try_from(found.len()).is_ok_and(|read| read == first);
        if let Some(last) = found.last_mut()
            && is_full
            && first < limit
        {
            // Whether others follow is found out, or there is no room for them.
            last.more = true;
            let after = last.account_id.clone();
            let bytes: i64 = found.iter().map(ListedRow::bytes).sum();
            let left = MAX_BYTES - bytes;
            if left > 0 {
                // As many as there is room for if the next are as large, and some more.
                let rows = (left / (bytes / first).max(1) + FIRST_ROWS / 8).min(limit - first);
                let mut others = self.list_some(pool_id, filter, &after, rows, left).await?;
                let is_full = i64::try_from(others.len()).is_ok_and(|read| read == rows);
                match others.last_mut() {
                    Some(last) => last.more |= is_full,
                    None => found.iter_mut().for_each(|row| row.more = false),
                }
                found.append(&mut others);
            }
        }
        read_page(found, limit, |row| row.more, |row| row.account(pool_id))
    }

    async fn list_some(
        &self,
        pool_id: &PoolId,
        filter: &AccountFilter,
        after: &str,
        limit: i64,
        bytes: i64,
    ) -> Result<Vec<ListedRow>, sqlx::Error> {
        let rows = sqlx::query_file_as!(
            ListedRow,
            "src/store/sql/account/list_accounts.sql",
            pool_id.as_str(),
            after,
            limit,
            filter.status.map(AccountStatus::as_str),
            filter.login_status.map(LoginStatus::as_str),
            filter.plan_id.as_ref().map(PlanId::as_str),
            bytes,
            filter.holder.as_ref().map(Holder::as_str),
            filter.updated_from,
            filter.updated_to,
        );
        rows.fetch_all(&self.rest).await
    }

    /// Lists an account's events before `before` (a version, exclusive), newest first, at most `limit`.
    pub async fn list_account_events(
        &self,
        pool_id: &PoolId,
        account_id: &AccountId,
        filter: &EventFilter,
        before: i64,
        limit: i64,
    ) -> Result<Page<RecordedEvent>, StoreError> {
        let rows = sqlx::query_file_as!(
            EventRow,
            "src/store/sql/account/list_account_events.sql",
            pool_id.as_str(),
            account_id.as_str(),
            before,
            limit,
            filter.from,
            filter.to,
            filter.reason.as_deref(),
            filter.redemption_id.map(|id| id.0),
            filter.actor.as_deref(),
        );
        // An event is about 1 KiB long at most: the limit bounds a page well enough.
        read_page(rows.fetch_all(&self.rest).await?, limit, |_| false, EventRow::read)
    }
}
