//! The transitions as one would write them by hand: one row, one statement, one commit. What Holdfast is
//! compared with must be good, so the plan that Postgres makes of them is checked before they are measured.

use anyhow::{Context as _, ensure};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};

/// One of the transitions.
#[derive(Clone, Copy)]
pub(crate) struct Statement {
    name: &'static str,
    /// With names for the parameters, as pgbench has them. What one answers is named for the next.
    pub(crate) sql: &'static str,
    /// Some values for the parameters.
    some: &'static str,
}

const LEASE: &str = "('account-00000001', 1)";

pub(crate) const ACQUIRE: Statement =
    Statement { name: "acquire", sql: include_str!("../../sql/acquire.sql"), some: "" };
pub(crate) const RELEASE: Statement =
    Statement { name: "release", sql: include_str!("../../sql/release.sql"), some: LEASE };
pub(crate) const BEGIN: Statement =
    Statement { name: "begin", sql: include_str!("../../sql/begin.sql"), some: LEASE };
pub(crate) const SETTLE: Statement = Statement {
    name: "settle",
    sql: include_str!("../../sql/settle.sql"),
    some: "('00000000-0000-0000-0000-000000000000')",
};

/// The index that acquire scans. Holdfast has none like it: it chooses in memory.
const FREE: &str = "accounts_by_hand";
const PREPARE: &str = "CREATE INDEX IF NOT EXISTS accounts_by_hand ON accounts
        (pool_id, status, idle_since, account_id)
        WHERE status IN ('PROCESSING', 'WAITING') AND login_status = 'ACTIVE' AND NOT paused AND NOT draining;
    ALTER TABLE accounts DISABLE TRIGGER USER";
/// What everything else is looked up by.
const KEYS: [&str; 2] = ["accounts_pkey", "redemptions_pkey"];

impl Statement {
    /// With the parameters of the protocol.
    pub(crate) fn numbered(&self) -> String {
        let numbers = [(":account_id", "$1"), (":fencing_token", "$2"), (":redemption_id", "$1")];
        numbers
            .into_iter()
            .fold(self.sql.to_owned(), |sql, (name, number)| sql.replace(name, number))
    }

    /// How Postgres would go about it whatever the parameters are: as after a few calls.
    async fn plan(&self, db: &mut PgConnection) -> anyhow::Result<Value> {
        let Self { name, some, .. } = self;
        let statements = format!(
            "SET plan_cache_mode = force_generic_plan;
             PREPARE by_hand_{name} AS {};
             EXPLAIN (FORMAT JSON) EXECUTE by_hand_{name}{some}",
            self.numbered()
        );
        let rows = sqlx::raw_sql(AssertSqlSafe(statements)).fetch_all(db).await?;
        let row = rows.last().context("EXPLAIN says nothing")?;
        Ok(serde_json::from_str(&row.try_get_unchecked::<String, _>(0)?)?)
    }
}

/// Makes the index of free accounts, takes away the triggers that Holdfast has for people's changes, and fails unless Postgres finds the row of each transition at once: acquire by
/// scanning that index in order, the others by their keys. A migration that changes an index changes that, and what is then slow is not
/// what one would write. The tables must be filled, and have their statistics.
pub(crate) async fn ensure_direct(url: &str, statements: &[Statement]) -> anyhow::Result<()> {
    let mut db = PgConnection::connect(url).await?;
    sqlx::raw_sql(PREPARE).execute(&mut db).await?;
    for statement in statements {
        let plan = statement.plan(&mut db).await?;
        let name = statement.name;
        judge(&plan, name == ACQUIRE.name)
            .with_context(|| format!("sql/{name}.sql is not as good as it can be: {plan:#}"))?;
    }
    db.close().await?;
    Ok(())
}

fn judge(plan: &Value, scans: bool) -> anyhow::Result<()> {
    let mut nodes = Vec::new();
    gather(plan, &mut nodes);
    let of = |field: &str| -> Vec<&str> {
        nodes.iter().filter_map(|node| node[field].as_str()).collect()
    };
    for kind in of("Node Type") {
        let slow = ["Sort", "Seq Scan", "Bitmap", "Hash"].iter().any(|slow| kind.contains(slow));
        ensure!(!slow, "there is a {kind} in its plan");
    }
    let indexes = of("Index Name");
    for index in &indexes {
        let expected = KEYS.contains(index) || scans && *index == FREE;
        ensure!(expected, "it uses the index {index}");
    }
    ensure!(!indexes.is_empty(), "it uses no index");
    ensure!(!scans || indexes.contains(&FREE), "it does not scan {FREE}");
    Ok(())
}

/// All nodes of a plan.
fn gather<'a>(value: &'a Value, nodes: &mut Vec<&'a Value>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| gather(value, nodes)),
        Value::Object(fields) => {
            if fields.contains_key("Node Type") {
                nodes.push(value);
            }
            fields.values().for_each(|value| gather(value, nodes));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use holdfast::{
        embedded::{Data, Options, Postgres},
        store::Store,
    };

    use super::*;
    use crate::postgres;

    #[tokio::test]
    async fn what_is_written_by_hand_finds_its_row_at_once() {
        let postgres = Postgres::start(Options::new(Data::ThrowAway)).await.unwrap();
        let url = postgres.url(holdfast::embedded::DATABASE);
        let store = Store::open(&url.clone().into(), 2).unwrap();
        store.migrate().await.unwrap();
        store.close().await;
        postgres::fill_with_past(&url, 10_000).await.unwrap();
        ensure_direct(&url, &[ACQUIRE, RELEASE, BEGIN, SETTLE]).await.unwrap();

        // And where the index is another one, it is noticed.
        let other =
            "DROP INDEX accounts_by_hand; CREATE INDEX accounts_by_hand ON accounts (pool_id, idle_since)
             WHERE status IN ('PROCESSING', 'WAITING')";
        postgres::run(&url, other).await.unwrap();
        let refused = format!("{:#}", ensure_direct(&url, &[ACQUIRE]).await.unwrap_err());
        assert!(refused.contains("acquire.sql is not as good as it can be"), "{refused}");
    }
}
