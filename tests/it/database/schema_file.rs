//! `schema.sql` shows the schema that the migrations make.

use std::collections::BTreeSet;

use holdfast::store::Store;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::support::cluster::{Template, TestDatabase};

/// All that a schema consists of, one line each, as the database that runs prints it.
const PARTS: &str = "
    WITH relation AS (
        SELECT c.* FROM pg_class c
        WHERE c.relnamespace = current_schema()::regnamespace AND c.relname NOT LIKE 'holdfast\\_migrations%'
    )
    SELECT format('%s %s: %s', c.relkind, c.relname, c.reloptions) FROM relation c
    UNION ALL
    SELECT format('column %s %s of %s: %s collate %s, not null %s, default %s, generated %s, %s',
        row_number() OVER (PARTITION BY c.oid ORDER BY a.attnum), a.attname, c.relname, format_type(a.atttypid, a.atttypmod), l.collname, a.attnotnull,
        pg_get_expr(d.adbin, d.adrelid), a.attgenerated, a.attoptions)
    FROM relation c
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_collation l ON l.oid = a.attcollation
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    UNION ALL
    SELECT format('constraint %s of %s: %s', n.conname, c.relname, pg_get_constraintdef(n.oid))
    FROM relation c JOIN pg_constraint n ON n.conrelid = c.oid
    UNION ALL
    SELECT pg_get_indexdef(i.indexrelid) FROM relation c JOIN pg_index i ON i.indrelid = c.oid
    UNION ALL
    SELECT format('%s: %s', pg_get_triggerdef(t.oid), t.tgenabled)
    FROM relation c JOIN pg_trigger t ON t.tgrelid = c.oid AND NOT t.tgisinternal
    UNION ALL
    SELECT pg_get_functiondef(p.oid) FROM pg_proc p
    WHERE p.pronamespace = current_schema()::regnamespace";

async fn empty_database() -> TestDatabase {
    static EMPTY: Template = Template::new("empty_for_schema_file");
    EMPTY.fresh_database(async |_| Ok(())).await
}

async fn run(db: &mut PgConnection, sql: &str) {
    let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(db).await;
    done.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

async fn parts(db: &mut PgConnection) -> BTreeSet<String> {
    let parts: Vec<String> = sqlx::query_scalar(PARTS).fetch_all(db).await.unwrap();
    parts.into_iter().collect()
}

/// A database with what `schema.sql` shows.
async fn shown() -> (TestDatabase, PgConnection) {
    let database = empty_database().await;
    let mut db = PgConnection::connect(&database.url).await.unwrap();
    run(&mut db, include_str!("../../../schema.sql")).await;
    (database, db)
}

#[tokio::test]
async fn schema_sql_shows_what_the_migrations_make() {
    let (shown_database, mut db) = shown().await;
    let shown = parts(&mut db).await;
    drop(db);
    let database = empty_database().await;
    let store = Store::open(&database.url.clone().into(), 2).unwrap();
    store.migrate().await.unwrap();
    store.close().await;
    let mut db = PgConnection::connect(&database.url).await.unwrap();
    let made = parts(&mut db).await;
    drop(db);
    assert!(made.len() > 200, "{made:#?}");
    let differences: Vec<_> = shown.symmetric_difference(&made).collect();
    assert!(differences.is_empty(), "{differences:#?}\nrun: make schema-prepare");
    shown_database.drop_database().await;
    database.drop_database().await;
}

/// Changes of a schema, each of another kind of part.
const CHANGES: [&str; 12] = [
    "CREATE TABLE another (x int)",
    "ALTER TABLE accounts SET (fillfactor = 71)",
    "ALTER TABLE redemptions ALTER COLUMN pool_id RESET (n_distinct)",
    "ALTER TABLE accounts ALTER COLUMN hold_count SET DEFAULT 1",
    "ALTER TABLE redemptions ALTER COLUMN provider_ref TYPE text COLLATE \"C\"",
    "ALTER TABLE redemptions ALTER COLUMN holder DROP NOT NULL",
    "ALTER TABLE plans DROP CONSTRAINT plans_check",
    "DROP INDEX redemptions_open",
    "DROP TRIGGER account_keep_id ON accounts",
    "ALTER TABLE account_events DISABLE TRIGGER account_events_append_only",
    "ALTER FUNCTION refuse_change() RESET search_path",
    "ALTER TYPE account_change DROP ATTRIBUTE guard",
];

#[tokio::test]
async fn a_difference_of_any_kind_is_noticed() {
    let (database, mut db) = shown().await;
    let mut before = parts(&mut db).await;
    for change in CHANGES {
        run(&mut db, change).await;
        let after = parts(&mut db).await;
        assert_ne!(before, after, "{change}");
        before = after;
    }
    drop(db);
    database.drop_database().await;
}
