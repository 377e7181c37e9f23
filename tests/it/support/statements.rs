//! The program's statements, run by a test to see how Postgres executes them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use sqlx::{AssertSqlSafe, PgConnection, Row as _};

use super::plans::psql;

/// The files of the statements, by their names. They stand in folders by subject.
pub(crate) fn statement_files() -> BTreeMap<String, PathBuf> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/sql")];
    let mut files = BTreeMap::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
                let other = files.insert(name, path.clone());
                assert!(other.is_none(), "two statements have the name of {}", path.display());
            }
        }
    }
    files
}

/// The text of a statement.
pub(crate) fn statement(name: &str) -> String {
    fs::read_to_string(&statement_files()[name]).unwrap()
}

/// Lets a connection plan as the store's do: one plan for any arguments.
pub(crate) async fn plan_as_the_store(db: &mut PgConnection) {
    for setting in [
        "plan_cache_mode = force_generic_plan",
        "enable_bitmapscan = off",
        "enable_seqscan = off",
        "enable_hashjoin = off",
        "enable_mergejoin = off",
    ] {
        psql(db, &format!("SET {setting}")).await;
    }
}

/// What a statement came to.
pub(crate) struct Ran {
    pub(crate) rows: i64,
    /// How often it looked at a page.
    pub(crate) pages: i64,
}

/// Runs a statement with arguments, as `EXECUTE` takes them.
pub(crate) async fn run(db: &mut PgConnection, sql: &str, arguments: &str) -> Ran {
    psql(db, &format!("PREPARE counted AS {sql}")).await;
    let explain = format!("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE counted ({arguments})");
    let row = sqlx::raw_sql(AssertSqlSafe(explain)).fetch_one(&mut *db).await.unwrap();
    let plan: serde_json::Value = row.get(0);
    psql(db, "DEALLOCATE counted").await;
    let count = |what: &str| plan[0]["Plan"][what].as_f64().unwrap().round() as i64;
    Ran {
        rows: count("Actual Rows"),
        pages: count("Shared Hit Blocks") + count("Shared Read Blocks"),
    }
}
