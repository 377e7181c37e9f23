//! Statements that the benchmark itself runs, and Postgres's programs.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

pub(crate) use holdfast::embedded::USER;

/// The pool that is worked on.
pub(crate) const POOL: &str = "bench";

/// Runs statements, one after the other.
pub(crate) async fn run(url: &str, sql: &str) -> anyhow::Result<()> {
    let mut db = PgConnection::connect(url).await?;
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut db).await?;
    db.close().await?;
    Ok(())
}

/// A number that a query answers with.
pub(crate) async fn number(url: &str, sql: &str) -> anyhow::Result<i64> {
    let mut db = PgConnection::connect(url).await?;
    let number = sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&mut db).await?;
    db.close().await?;
    Ok(number)
}

/// What a setting is.
pub(crate) async fn setting(url: &str, name: &str) -> anyhow::Result<String> {
    let mut db = PgConnection::connect(url).await?;
    let show = format!("SHOW {name}");
    Ok(sqlx::query_scalar(AssertSqlSafe(show)).fetch_one(&mut db).await?)
}

/// A pool of accounts that are free, and belong to no plan: what a one-row statement has to read is the
/// least then.
pub(crate) async fn fill(url: &str, accounts: usize) -> anyhow::Result<()> {
    let sql = format!(
        "INSERT INTO pools (pool_id, currency_code, default_lease, min_lease, max_lease, amount_mismatch)
         VALUES ('{POOL}', 'EUR', '1 minute', '1 second', '1 hour', 'ACCEPT');
         INSERT INTO accounts (pool_id, account_id, country_code)
         SELECT '{POOL}', format('account-%s', lpad(n::text, 8, '0')), 'DE'
         FROM generate_series(1, {accounts}) n;
         ANALYZE"
    );
    run(url, &sql).await?;
    run(url, "VACUUM accounts").await
}

/// The same, and a past redemption of each account: a table that is known to be empty is planned for as such,
/// on all sides, until Postgres next analyzes it.
pub(crate) async fn fill_with_past(url: &str, accounts: usize) -> anyhow::Result<()> {
    fill(url, accounts).await?;
    let accounts = i64::try_from(accounts)?;
    fill_past(url, accounts, accounts).await
}

/// Redemptions that were settled long ago, all over the accounts. The table is new in the transaction, so
/// nothing of it is written twice; its indexes and checks of keys come afterwards, or are left out.
pub(crate) async fn fill_past(url: &str, accounts: i64, past: i64) -> anyhow::Result<()> {
    let sql = format!(
        "SET maintenance_work_mem = '1GB';
         SET session_replication_role = replica;
         DO $$
         DECLARE
             later text[] := '{{}}';
             found record;
             command text;
         BEGIN
             TRUNCATE redemptions;
             FOR found IN
                 SELECT conname, pg_get_constraintdef(oid) AS definition
                 FROM pg_constraint WHERE conrelid = 'redemptions'::regclass AND contype IN ('p', 'u')
             LOOP
                 later := later || format(
                     'ALTER TABLE redemptions ADD CONSTRAINT %I %s', found.conname, found.definition
                 );
                 EXECUTE format('ALTER TABLE redemptions DROP CONSTRAINT %I', found.conname);
             END LOOP;
             FOR found IN SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'redemptions' LOOP
                 later := later || found.indexdef;
                 EXECUTE format('DROP INDEX %I', found.indexname);
             END LOOP;
             INSERT INTO redemptions (
                 pool_id, redemption_id, account_id, fencing_token, request_id, holder, state,
                 release_on_completion, code_fingerprint, code_last4, expected_minor, not_after,
                 amount_minor, amount_currency, provider_ref, attempts, created_at, updated_at, finished_at
             )
             SELECT
                 '{POOL}',
                 (lpad(to_hex(1700000000000 + n * 60), 12, '0') || '-7000-8000-'
                     || lpad(to_hex(n), 12, '0'))::uuid,
                 'account-' || lpad((1 + n * 7919 % {accounts})::text, 8, '0'),
                 1, 'batch:past:item-' || n, 'bench', 'SUCCEEDED', true, sha256(int8send(n)), '1234',
                 5000, now(), 5000, 'EUR', 'sim-' || n, 1, now(), now(), now()
             FROM generate_series(1::bigint, {past}) n;
             FOREACH command IN ARRAY later LOOP
                 EXECUTE command;
             END LOOP;
         END
         $$"
    );
    run(url, &sql).await?;
    run(url, "VACUUM (ANALYZE) redemptions").await
}

/// One of Postgres's programs.
pub(crate) fn program(name: &str) -> anyhow::Result<PathBuf> {
    let given = std::env::var_os("HOLDFAST_POSTGRES_BIN").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<_> = given.into_iter().chain(std::env::split_paths(&path)).collect();
    for usual in ["/usr/lib/postgresql", "/opt/homebrew/opt", "/usr/local/opt"] {
        folders.extend(newest_first(Path::new(usual)));
    }
    folders
        .into_iter()
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
        .with_context(|| format!("{name} is not installed; it comes with Postgres"))
}

/// The folders of programs of the versions of Postgres in a folder.
fn newest_first(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut versions: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let version = name.strip_prefix("postgresql@").unwrap_or(&name).parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    versions.sort_by(|a, b| b.cmp(a));
    versions.into_iter().map(|(_, folder)| folder).collect()
}
