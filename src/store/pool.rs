//! Pools: how they are stored, read and changed.

use std::time::Duration;

use serde_json::Value;
use sqlx::postgres::types::PgInterval;
use time::OffsetDateTime;

use super::{
    Store, StoreError,
    audit::{self, Written},
    duration, interval,
    page::read_page,
    patience::read_patiently,
};
use crate::domain::{
    access::PoolFilter,
    id::{PoolId, ProviderId},
    money::Currency,
    page::Page,
    pool::PoolChange,
    principal::Authority,
};
pub use crate::domain::{
    hold::Holds,
    pool::{AmountMismatch, NewPool, Pool, PoolUse},
};

/// Declares the row of a statement that answers with pools: the columns that all of them share, and those of its own.
macro_rules! pool_row {
    ($name:ident { $($own:ident: $type:ty),* }) => {
struct $name {
    $($own: $type,)*
    pool_id: String,
    provider_id: String,
    currency_code: String,
    default_lease: PgInterval,
    min_lease: PgInterval,
    max_lease: PgInterval,
    paused: bool,
    draining: bool,
    holder_share_percent: i32,
    hold_login_invalid: PgInterval,
    hold_limit_reached: PgInterval,
    hold_throttled: PgInterval,
    hold_longest: PgInterval,
    amount_mismatch: String,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
}

impl $name {
    fn read(self) -> Result<Pool, StoreError> {
        Ok(Pool {
            pool_id: read_pool_id(&self.pool_id)?,
            provider_id: ProviderId::parse(&self.provider_id)
                .map_err(|_| StoreError::Unreadable("pools.provider_id"))?,
            currency: Currency::parse(&self.currency_code)
                .ok_or(StoreError::Unreadable("pools.currency_code"))?,
            default_lease: duration(&self.default_lease),
            min_lease: duration(&self.min_lease),
            max_lease: duration(&self.max_lease),
            paused: self.paused,
            draining: self.draining,
            holder_share_percent: self.holder_share_percent,
            holds: Holds {
                login_invalid: duration(&self.hold_login_invalid),
                limit_reached: duration(&self.hold_limit_reached),
                throttled: duration(&self.hold_throttled),
                longest: duration(&self.hold_longest),
            },
            amount_mismatch: AmountMismatch::parse(&self.amount_mismatch)
                .ok_or(StoreError::Unreadable("pools.amount_mismatch"))?,
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }
}
    };
}

pool_row!(PoolRow {});
pool_row!(ChangedRow { before: Option<Value>, after: Option<Value> });

impl ChangedRow {
    /// Says in the log what was recorded of the change.
    fn told(mut self, by: &Authority, action: &str) -> Self {
        let (before, after) = (self.before.take(), self.after.take());
        let (pool_id, subject, reason) = (&*self.pool_id, &*self.pool_id, "");
        audit::log_written(by, &Written { action, pool_id, subject, before, after, reason });
        self
    }
}

pub(super) fn read_pool_id(text: &str) -> Result<PoolId, StoreError> {
    PoolId::parse(text).map_err(|_| StoreError::Unreadable("pool_id"))
}

pub(super) fn read_pool_ids(ids: &[String]) -> Result<Vec<PoolId>, StoreError> {
    ids.iter().map(|id| read_pool_id(id)).collect()
}

impl Store {
    /// Creates a pool; `None` when it is there already.
    pub async fn insert_pool(
        &self,
        new: &NewPool,
        by: &Authority,
    ) -> Result<Option<Pool>, StoreError> {
        let inserted = sqlx::query_file_as!(
            ChangedRow,
            "src/store/sql/pool/insert_pool.sql",
            new.pool_id.as_str(),
            new.currency.as_str(),
            interval(new.default_lease),
            interval(new.min_lease),
            interval(new.max_lease),
            new.paused,
            new.amount_mismatch.as_str(),
            new.draining,
            new.holder_share_percent,
            interval(new.holds.login_invalid),
            interval(new.holds.limit_reached),
            interval(new.holds.throttled),
            interval(new.holds.longest),
            new.provider_id.as_str(),
            by.principal.name(),
            by.peer(),
        )
        .fetch_optional(&self.db)
        .await?;
        inserted.map(|row| row.told(by, "CreatePool").read()).transpose()
    }

    /// Reads a pool.
    pub async fn get_pool(&self, pool_id: &PoolId) -> Result<Option<Pool>, StoreError> {
        let read = || {
            sqlx::query_file_as!(PoolRow, "src/store/sql/pool/get_pool.sql", pool_id.as_str())
                .fetch_optional(&self.db)
        };
        read_patiently(read).await?.map(PoolRow::read).transpose()
    }

    /// Lists the pools after `after` (exclusive), at most `limit`.
    pub async fn list_pools(
        &self,
        after: &str,
        limit: i64,
        filter: &PoolFilter,
    ) -> Result<Page<Pool>, StoreError> {
        let rows = sqlx::query_file_as!(
            PoolRow,
            "src/store/sql/pool/list_pools.sql",
            after,
            limit,
            &filter.starts,
            &filter.ids,
        );
        // A pool is about 400 bytes long at most: the limit bounds a page well enough.
        read_page(rows.fetch_all(&self.rest).await?, limit, |_| false, PoolRow::read)
    }

    /// Changes a pool; `None` when there is none, or when its lease durations would be out of order.
    pub async fn update_pool(
        &self,
        pool_id: &PoolId,
        change: PoolChange,
        by: &Authority,
    ) -> Result<Option<Pool>, StoreError> {
        let updated = sqlx::query_file_as!(
            ChangedRow,
            "src/store/sql/pool/update_pool.sql",
            pool_id.as_str(),
            change.default_lease.map(interval),
            change.min_lease.map(interval),
            change.max_lease.map(interval),
            change.paused,
            change.amount_mismatch.map(AmountMismatch::as_str),
            change.draining,
            change.holder_share_percent,
            change.holds.login_invalid.map(interval),
            change.holds.limit_reached.map(interval),
            change.holds.throttled.map(interval),
            change.holds.longest.map(interval),
            by.principal.name(),
            by.peer(),
        )
        .fetch_optional(&self.db)
        .await?;
        self.ready.changed(pool_id);
        updated.map(|row| row.told(by, "UpdatePool").read()).transpose()
    }

    /// Deletes a pool that never had an account, with its plans; whether it did.
    pub async fn delete_pool(&self, pool_id: &PoolId, by: &Authority) -> Result<bool, StoreError> {
        let deleted = sqlx::query_file_scalar!(
            "src/store/sql/pool/delete_pool.sql",
            pool_id.as_str(),
            by.principal.name(),
            by.peer(),
        )
        .fetch_optional(&self.db)
        .await;
        self.ready.changed(pool_id);
        // An account or a plan may have been made meanwhile.
        audit::deleted(by, "DeletePool", [pool_id.as_str(); 2], deleted)
    }

    /// What keeps a pool from being deleted.
    pub async fn pool_use(&self, pool_id: &PoolId) -> Result<PoolUse, StoreError> {
        let row = sqlx::query_file!(
            "src/store/sql/pool/count_pool_use.sql",
            pool_id.as_str(),
            PoolUse::MOST,
        )
        .fetch_one(&self.rest)
        .await?;
        let (accounts, redemptions) = (row.accounts, row.redemptions);
        Ok(PoolUse { accounts, redemptions, had_accounts: row.had_accounts })
    }

    /// The pools that have a lease to end whose time passed `within` this time, or at any time.
    pub async fn pools_with_expired_leases(
        &self,
        within: Option<Duration>,
    ) -> Result<Vec<PoolId>, StoreError> {
        let ids = sqlx::query_file_scalar!(
            "src/store/sql/account/pools_with_expired_leases.sql",
            within.map(interval) as _
        )
        .fetch_all(&self.db)
        .await?;
        read_pool_ids(&ids)
    }
}
