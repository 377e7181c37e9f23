//! Counters of Postgres by the statement, where `pg_stat_statements` is installed.

use serde::Serialize;
use sqlx::{PgConnection, Row as _};

/// Of one statement.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Statement {
    pub(super) what: String,
    pub(super) calls: f64,
    pub(super) mean_ms: f64,
    pub(super) rows_a_call: f64,
    pub(super) wal_bytes_a_call: f64,
    pub(super) pages_a_call: f64,
}

/// How many are told: those that took the most time.
const TOLD: i32 = 12;

/// Begins to count anew.
pub(super) async fn reset(db: &mut PgConnection) -> anyhow::Result<()> {
    for sql in
        ["CREATE EXTENSION IF NOT EXISTS pg_stat_statements", "SELECT pg_stat_statements_reset()"]
    {
        sqlx::query(sql).execute(&mut *db).await?;
    }
    Ok(())
}

/// What was counted in this database.
pub(super) async fn read(db: &mut PgConnection) -> anyhow::Result<Vec<Statement>> {
    let found = sqlx::query(
        "SELECT query, calls::float8, mean_exec_time, (rows::float8 / calls), (wal_bytes / calls)::float8,
             ((shared_blks_hit + shared_blks_read)::float8 / calls)
         FROM pg_stat_statements
         WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
             -- Those of the server, which all begin with a comment.
             AND query LIKE '--%'
         ORDER BY total_exec_time DESC LIMIT $1",
    );
    let mut statements = Vec::new();
    for row in found.bind(TOLD).fetch_all(db).await? {
        statements.push(Statement {
            what: what(&row.try_get::<String, _>(0)?),
            calls: row.try_get(1)?,
            mean_ms: row.try_get(2)?,
            rows_a_call: row.try_get(3)?,
            wal_bytes_a_call: row.try_get(4)?,
            pages_a_call: row.try_get(5)?,
        });
    }
    Ok(statements)
}

/// What a statement says of itself: the beginning of its comment, else of itself.
fn what(sql: &str) -> String {
    const LONGEST: usize = 60;
    let first = sql.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("");
    let told = match first.strip_prefix("--") {
        Some(comment) => comment.split([':', '.']).next().unwrap_or(comment),
        None => first,
    };
    told.trim().replace('|', "/").chars().take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_told_by_its_comment() {
        assert_eq!(what("-- Release, shape (a): leases end.\nWITH"), "Release, shape (a)");
        assert_eq!(what("\n SELECT 1\n"), "SELECT 1");
    }
}
