//! Servers: their beats, and the early checks of redemptions that dead ones left in progress.

use std::time::Duration;

use sqlx::postgres::types::PgInterval;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Store, StoreError, duration, interval,
    lane::at_points,
    quarantine::{Done, Rows, Statement, count_skipped},
    redemption::redemption_row,
};
use crate::{
    domain::{
        id::{PoolId, RedemptionId},
        redemption::Redemption,
    },
    failpoints::Step,
};

/// The most servers that are read at once: far more than ever run, and than start within the time that a row is
/// kept.
const MAX_SERVERS: i64 = 10_000;

/// A server, and its beat when it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    /// The server, since it was started.
    pub server_id: Uuid,
    /// Rises while it lives.
    pub beat: i64,
}

/// A redemption in flight on a dead server, to be looked up.
#[derive(Clone, Debug)]
pub struct EarlyCheck {
    /// The redemption.
    pub redemption: Redemption,
    /// Its code, encrypted.
    pub code_ciphertext: Vec<u8>,
    /// The provider is not to begin after this time.
    pub not_after: OffsetDateTime,
    /// The server that sends it, if it lives after all.
    pub server_id: Uuid,
    /// How long it is the caller's to look up.
    pub hold: Duration,
}

redemption_row!(EarlyRow {
    code_ciphertext: Vec<u8>,
    not_after: OffsetDateTime,
    server_id: Uuid,
    hold: PgInterval
});

impl Store {
    /// Which server this is. A new id at each start.
    pub fn server_id(&self) -> Uuid {
        self.server_id
    }

    /// Tells the other servers that this one lives. May be repeated: it only beats once more.
    pub async fn beat(&self) -> Result<(), StoreError> {
        sqlx::query_file!("src/store/sql/beat.sql", self.server_id).execute(&self.db).await?;
        Ok(())
    }

    /// The beats of all servers.
    pub async fn list_beats(&self) -> Result<Vec<Beat>, StoreError> {
        Ok(sqlx::query_file_as!(Beat, "src/store/sql/list_beats.sql", MAX_SERVERS)
            .fetch_all(&self.db)
            .await?)
    }

    /// Removes servers that have not beaten for this time, and answers how many. May be repeated: what was removed
    /// is not there any more.
    pub async fn remove_servers(&self, silent_for: Duration) -> Result<i64, StoreError> {
        Ok(sqlx::query_file_scalar!(
            "src/store/sql/remove_servers.sql",
            interval(silent_for),
            MAX_SERVERS
        )
        .fetch_one(&self.db)
        .await?)
    }

    /// Removes this server, which has nothing in progress any more. May be repeated, as above.
    pub async fn remove_this_server(&self) -> Result<(), StoreError> {
        let removed = sqlx::query_file!("src/store/sql/remove_server.sql", self.server_id);
        removed.execute(&self.db).await?;
        Ok(())
    }

    /// The pools with redemptions in progress on these servers or on servers without a row, where an early check is
    /// due, and those servers.
    pub async fn pools_of_dead_servers(
        &self,
        dead: &[Uuid],
    ) -> Result<Vec<(PoolId, Uuid)>, StoreError> {
        let rows = sqlx::query_file!("src/store/sql/pools_of_dead_servers.sql", dead)
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
                "src/store/sql/claim_early_checks.sql",
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
                "src/store/sql/list_due_early_checks.sql",
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
