//! Checks: which redemptions in doubt, or in progress on a dead server, are the caller's to check.

use std::time::Duration;

use sqlx::postgres::types::PgInterval;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    domain::{
        id::{PoolId, RedemptionId},
        redemption::{DueCheck, EarlyCheck},
    },
    failpoints::Step,
    store::{
        Store, StoreError, duration, interval,
        points::at_points,
        pool::read_pool_ids,
        quarantine::{Done, Rows, Statement, count_skipped},
        redemption_row::redemption_row,
    },
};

redemption_row!(DueRow {
    code_ciphertext: Vec<u8>,
    not_after: OffsetDateTime,
    checks: i32,
    not_found_checks: i32,
    odd_checks: i32,
    sent_again_at: Option<OffsetDateTime>,
    db_now: OffsetDateTime
});

redemption_row!(EarlyRow {
    code_ciphertext: Vec<u8>,
    not_after: OffsetDateTime,
    server_id: Uuid,
    hold: PgInterval
});

impl Store {
    /// The pools that have a redemption to check that became due `within` this time, or at any time.
    pub async fn pools_with_due_checks(
        &self,
        within: Option<Duration>,
    ) -> Result<Vec<PoolId>, StoreError> {
        let ids = sqlx::query_file_scalar!(
            "src/store/sql/redemption/pools_with_due_checks.sql",
            within.map(interval) as _
        )
        .fetch_all(&self.db)
        .await?;
        read_pool_ids(&ids)
    }

    /// Takes redemptions of a pool whose check became due `within` this time, or at any time, at most
    /// `limit`, for as long as `hold`. One that cannot be written is left out, and does not hold up the others.
    pub async fn claim_checks(
        &self,
        pool_id: &PoolId,
        within: Option<Duration>,
        limit: i64,
        hold: Duration,
    ) -> Result<Done<DueCheck>, StoreError> {
        let claim = |rows: Rows| async move {
            let ids: Vec<_> = rows.ids.iter().filter_map(|id| Uuid::parse_str(id).ok()).collect();
            let claim = sqlx::query_file_as!(
                DueRow,
                "src/store/sql/redemption/claim_checks.sql",
                pool_id.as_str(),
                limit,
                interval(hold),
                within.map(interval) as _,
                &ids,
                rows.only,
            );
            at_points(Step::Claim, claim.fetch_all(&self.db)).await
        };
        let list = |limit: i64| async move {
            let due = sqlx::query_file_scalar!(
                "src/store/sql/redemption/list_due_checks.sql",
                pool_id.as_str(),
                limit,
            );
            Ok(due.fetch_all(&self.db).await?.iter().map(Uuid::to_string).collect())
        };
        let statement = Statement::ClaimChecks;
        let claimed = self.quarantine.run(statement, pool_id, limit, claim, list).await?;
        // One that cannot be read must not keep its neighbours from being checked.
        let read = |row: DueRow| {
            let id = row.redemption_id;
            row.due(pool_id)
                .inspect_err(|error| {
                    count_skipped("claim_checks");
                    tracing::error!(%pool_id, redemption_id = %id, %error, "a redemption in doubt cannot be read");
                })
                .ok()
        };
        let rows = claimed.rows.into_iter().filter_map(read).collect();
        Ok(Done { rows, may_be_more: claimed.may_be_more })
    }

    /// The pools with redemptions in progress on these servers or on servers without a row, where an early check is
    /// due, and those servers.
    pub async fn pools_of_dead_servers(
        &self,
        dead: &[Uuid],
    ) -> Result<Vec<(PoolId, Uuid)>, StoreError> {
        let rows = sqlx::query_file!("src/store/sql/redemption/pools_of_dead_servers.sql", dead)
            .fetch_all(&self.db)
            .await?;
        let read = |pool_id: &str| {
            PoolId::parse(pool_id).map_err(|_| StoreError::Unreadable("redemptions.pool_id"))
        };
        rows.iter().map(|row| Ok((read(&row.pool_id)?, row.server_id))).collect()
    }

    /// Takes redemptions of a pool that are in progress on these servers, at most `limit`, each for a hold between
    /// the two: half its age. One that cannot be written is left out, and does not hold up the others. May be
    /// repeated: what was taken is not due.
    pub async fn claim_early_checks(
        &self,
        pool_id: &PoolId,
        servers: &[Uuid],
        limit: i64,
        holds: (Duration, Duration),
    ) -> Result<Done<EarlyCheck>, StoreError> {
        let claim = |rows: Rows| async move {
            let ids: Vec<_> = rows.ids.iter().filter_map(|id| Uuid::parse_str(id).ok()).collect();
            let claim = sqlx::query_file_as!(
                EarlyRow,
                "src/store/sql/redemption/claim_early_checks.sql",
                pool_id.as_str(),
                limit,
                servers,
                interval(holds.0),
                interval(holds.1),
                &ids,
                rows.only,
            );
            at_points(Step::Claim, claim.fetch_all(&self.db)).await
        };
        let list = |limit: i64| async move {
            let due = sqlx::query_file_scalar!(
                "src/store/sql/redemption/list_due_early_checks.sql",
                pool_id.as_str(),
                limit,
                servers,
            );
            Ok(due.fetch_all(&self.db).await?.iter().map(Uuid::to_string).collect())
        };
        let statement = Statement::ClaimEarlyChecks;
        let claimed = self.quarantine.run(statement, pool_id, limit, claim, list).await?;
        let read = |row: EarlyRow| {
            let id = RedemptionId(row.redemption_id);
            row.early_check(pool_id)
                .inspect_err(|error| {
                    count_skipped("claim_early_checks");
                    tracing::error!(%pool_id, redemption_id = %id, %error, "a redemption of a dead server cannot be read");
                })
                .ok()
        };
        let rows = claimed.rows.into_iter().filter_map(read).collect();
        Ok(Done { rows, may_be_more: claimed.may_be_more })
    }

    /// Takes a redemption that is being sent or in doubt for an early look-up within `hold`. `None`: it is not the
    /// caller's, because a server asks about it now, its check comes due meanwhile, or it is settled. Nothing else of it
    /// changes.
    pub async fn claim_early_check(
        &self,
        pool_id: &PoolId,
        redemption_id: RedemptionId,
        hold: Duration,
    ) -> Result<Option<EarlyCheck>, StoreError> {
        let claim = sqlx::query_file_as!(
            EarlyRow,
            "src/store/sql/redemption/claim_early_check.sql",
            pool_id.as_str(),
            redemption_id.0,
            interval(hold),
        );
        let claimed = at_points(Step::Claim, claim.fetch_optional(&self.db)).await?;
        claimed.map(|row| row.early_check(pool_id)).transpose()
    }
}

impl DueRow {
    fn due(mut self, pool_id: &PoolId) -> Result<DueCheck, StoreError> {
        Ok(DueCheck {
            code_ciphertext: std::mem::take(&mut self.code_ciphertext),
            not_after: self.not_after,
            checks: self.checks,
            not_found_checks: self.not_found_checks,
            odd_checks: self.odd_checks,
            sent_again_at: self.sent_again_at,
            db_now: self.db_now,
            redemption: self.redemption(pool_id)?,
        })
    }
}

impl EarlyRow {
    fn early_check(mut self, pool_id: &PoolId) -> Result<EarlyCheck, StoreError> {
        Ok(EarlyCheck {
            code_ciphertext: std::mem::take(&mut self.code_ciphertext),
            not_after: self.not_after,
            server_id: self.server_id,
            hold: duration(&self.hold),
            redemption: self.redemption(pool_id)?,
        })
    }
}
