//! One statement at a time from a bare client: what a caller alone would do without Holdfast.

use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};

use super::by_hand::{self, ACQUIRE, RELEASE};

/// A connection, and the one-row statements as they are prepared on it.
pub(crate) struct Bare {
    db: PgConnection,
    release: String,
}

impl Bare {
    pub(crate) async fn connect(url: &str) -> anyhow::Result<Self> {
        by_hand::ensure_direct(url, &[ACQUIRE, RELEASE]).await?;
        Ok(Self { db: PgConnection::connect(url).await?, release: RELEASE.numbered() })
    }

    /// Acquires, and releases again. Answers with how long the acquisition took.
    pub(crate) async fn acquire(&mut self) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        let row = sqlx::query(AssertSqlSafe(ACQUIRE.sql)).fetch_one(&mut self.db).await?;
        let took = begun.elapsed();
        let (account_id, token): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
        sqlx::query(AssertSqlSafe(self.release.clone()))
            .bind(account_id)
            .bind(token)
            .execute(&mut self.db)
            .await?;
        Ok(took)
    }
}
