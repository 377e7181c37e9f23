//! Postgres's counters of a database: how much of what was touched, how large it is, how much it logged.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;
use sqlx::{PgConnection, Row as _};

/// The tables that are written all the time.
const TABLES: &str = "('accounts', 'account_events', 'redemptions')";
/// A session tells what it counted within this time of its last statement.
const TOLD: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// See the module.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Counters {
    /// Bytes of the write-ahead log since the cluster was made.
    pub(crate) wal_bytes: f64,
    pub(crate) tables: BTreeMap<String, Table>,
    /// By their names.
    pub(crate) indexes: BTreeMap<String, Index>,
}

/// Of a table, with what is stored beside it; without its indexes.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Table {
    pub(crate) bytes: f64,
    pub(crate) dead_rows: f64,
    pub(crate) inserted: f64,
    pub(crate) updated: f64,
    pub(crate) hot_updated: f64,
    /// Rows read one after the other.
    pub(crate) scanned: f64,
    /// Rows fetched by an index.
    pub(crate) fetched: f64,
    pub(crate) autovacuums: f64,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Index {
    pub(crate) table: String,
    pub(crate) bytes: f64,
    pub(crate) scans: f64,
    /// Entries read in them.
    pub(crate) entries: f64,
}

impl Counters {
    pub(crate) async fn read(db: &mut PgConnection) -> anyhow::Result<Self> {
        let wal_bytes = sqlx::query_scalar("SELECT (pg_current_wal_lsn() - '0/0')::float8");
        let wal_bytes = wal_bytes.fetch_one(&mut *db).await?;
        let tables = format!(
            "SELECT relname::text, pg_table_size(relid)::float8, n_dead_tup::float8, n_tup_ins::float8,
                 n_tup_upd::float8, n_tup_hot_upd::float8, seq_tup_read::float8,
                 COALESCE(idx_tup_fetch, 0)::float8, autovacuum_count::float8
             FROM pg_stat_user_tables WHERE relname IN {TABLES}"
        );
        let indexes = format!(
            "SELECT indexrelname::text, relname::text, pg_relation_size(indexrelid)::float8,
                 idx_scan::float8, idx_tup_read::float8
             FROM pg_stat_user_indexes WHERE relname IN {TABLES}"
        );
        let mut counters = Self { wal_bytes, ..Self::default() };
        for row in sqlx::query(sqlx::AssertSqlSafe(tables)).fetch_all(&mut *db).await? {
            let table = Table {
                bytes: row.try_get(1)?,
                dead_rows: row.try_get(2)?,
                inserted: row.try_get(3)?,
                updated: row.try_get(4)?,
                hot_updated: row.try_get(5)?,
                scanned: row.try_get(6)?,
                fetched: row.try_get(7)?,
                autovacuums: row.try_get(8)?,
            };
            counters.tables.insert(row.try_get(0)?, table);
        }
        for row in sqlx::query(sqlx::AssertSqlSafe(indexes)).fetch_all(&mut *db).await? {
            let index = Index {
                table: row.try_get(1)?,
                bytes: row.try_get(2)?,
                scans: row.try_get(3)?,
                entries: row.try_get(4)?,
            };
            counters.indexes.insert(row.try_get(0)?, index);
        }
        Ok(counters)
    }

    /// The same, once every session has told what it did. For when nothing is going on.
    pub(crate) async fn settled(db: &mut PgConnection) -> anyhow::Result<Self> {
        let begun = std::time::Instant::now();
        loop {
            // Every change of an account has its event.
            let events = sqlx::query_scalar("SELECT count(*)::float8 FROM account_events");
            let events: f64 = events.fetch_one(&mut *db).await?;
            let counters = Self::read(db).await?;
            if counters.table("account_events").inserted >= events {
                return Ok(counters);
            }
            anyhow::ensure!(begun.elapsed() < TOLD, "Postgres does not tell what was done");
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    pub(crate) fn table(&self, name: &str) -> Table {
        self.tables.get(name).cloned().unwrap_or_default()
    }

    /// What came since; sizes and dead rows as they are.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let mut since = self.clone();
        since.wal_bytes -= before.wal_bytes;
        for (name, table) in &mut since.tables {
            let was = before.table(name);
            table.inserted -= was.inserted;
            table.updated -= was.updated;
            table.hot_updated -= was.hot_updated;
            table.scanned -= was.scanned;
            table.fetched -= was.fetched;
            table.autovacuums -= was.autovacuums;
        }
        for (name, index) in &mut since.indexes {
            let was = before.indexes.get(name).cloned().unwrap_or_default();
            index.scans -= was.scans;
            index.entries -= was.entries;
        }
        since
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_since_is_told_and_sizes_stay() {
        let counters = |wal_bytes, updated, bytes| {
            let table = Table { updated, bytes, ..Table::default() };
            let tables = BTreeMap::from([("accounts".to_owned(), table)]);
            Counters { wal_bytes, tables, ..Counters::default() }
        };
        let since = counters(900.0, 50.0, 8192.0).since(&counters(400.0, 20.0, 4096.0));
        let table = since.table("accounts");
        assert_eq!((since.wal_bytes, table.updated, table.bytes), (500.0, 30.0, 8192.0));
    }
}
