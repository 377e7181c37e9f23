//! What never happens, whatever a test did: checked after each.

use std::{collections::HashMap, path::Path, time::Duration};

use holdfast::simulator::ledger::{self, State};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};
use uuid::Uuid;

use super::{logs, wait::eventually};

/// How long what is in doubt may take to be settled once the provider behaves.
const SETTLE: Duration = Duration::from_secs(40);

/// Waits until no outcome is unknown but those that a person must find out.
pub(crate) async fn everything_settles(url: &str) {
    let mut db = PgConnection::connect(url).await.unwrap();
    eventually(SETTLE, "every redemption in doubt is settled", async || {
        let open: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM redemptions WHERE state IN ('SUBMITTED', 'IN_DOUBT')",
        )
        .fetch_one(&mut db)
        .await
        .unwrap();
        (open == 0).then_some(())
    })
    .await;
}

/// No account is locked past its lease and one sweep, unless a redemption is open.
pub(crate) async fn leases_end(url: &str) {
    let mut db = PgConnection::connect(url).await.unwrap();
    eventually(Duration::from_secs(2), "leases whose time has passed are ended", async || {
        let stuck: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM accounts
             WHERE status = 'LOCKING' AND open_redemption_id IS NULL
               AND lease_expires_at < now() - interval '1 second'",
        )
        .fetch_one(&mut db)
        .await
        .unwrap();
        (stuck == 0).then_some(())
    })
    .await;
}

/// The rest, on a database that nobody uses any more.
pub(crate) async fn invariants(url: &str, ledger: &Path, code_prefix: &str) {
    let mut db = PgConnection::connect(url).await.unwrap();
    ledger_agrees(&mut db, ledger).await;
    balances_add_up(&mut db).await;
    leases_never_overlap(&mut db).await;
    events_tell_the_whole_story(&mut db).await;
    open_redemptions_hold_their_accounts(&mut db).await;
    no_code_is_in_clear(&mut db, code_prefix).await;
}

/// No code is credited twice, and each side knows of the other's credits, to the cent.
async fn ledger_agrees(db: &mut PgConnection, ledger: &Path) {
    let mut credits_by_code: HashMap<String, Vec<String>> = HashMap::new();
    let mut theirs: HashMap<Uuid, (String, i64)> = HashMap::new();
    for row in ledger::read(ledger).unwrap() {
        if row.state != State::Succeeded {
            continue;
        }
        let key: Uuid = row.key.parse().unwrap();
        if let Some(code) = row.code_sha256 {
            credits_by_code.entry(code).or_default().push(row.key.clone());
        }
        let credit = (row.account_ref.unwrap_or_default(), row.amount_minor);
        assert_eq!(theirs.insert(key, credit), None, "key {key} was credited twice");
    }
    for (code, keys) in credits_by_code {
        assert!(keys.len() == 1, "code {code} was credited under {keys:?}");
    }
    let rows = sqlx::query("SELECT * FROM redemptions").fetch_all(db).await.unwrap();
    for row in rows {
        let id: Uuid = row.get("redemption_id");
        let state: String = row.get("state");
        let credited = theirs.remove(&id);
        match &*state {
            "SUCCEEDED" if row.get::<Option<String>, _>("resolved_by").is_none() => {
                let ours = (row.get("account_id"), row.get("amount_minor"));
                assert_eq!(credited, Some(ours), "redemption {id}");
            }
            "FAILED" if row.get::<Option<String>, _>("resolved_by").is_none() => {
                assert_eq!(credited, None, "redemption {id} is FAILED");
            }
            // A person's word may differ; a review says that something does not fit.
            "SUCCEEDED" | "FAILED" | "NEEDS_REVIEW" => {}
            open => panic!("redemption {id} is still {open}"),
        }
    }
    assert!(theirs.is_empty(), "the provider credited what we do not know of: {theirs:?}");
}

/// An account's balance is what it began with and what was credited since.
async fn balances_add_up(db: &mut PgConnection) {
    let wrong: Vec<String> = sqlx::query_scalar(
        "SELECT a.account_id FROM accounts a
         JOIN account_events first USING (pool_id, account_id)
         WHERE first.version = 1
           AND a.balance_minor <> first.balance_minor + (
               SELECT COALESCE(sum(r.amount_minor), 0) FROM redemptions r
               WHERE r.pool_id = a.pool_id AND r.account_id = a.account_id
                 AND r.state = 'SUCCEEDED')",
    )
    .fetch_all(db)
    .await
    .unwrap();
    assert!(wrong.is_empty(), "balances that do not add up: {wrong:?}");
}

/// By the database's times, no lease begins before the one before it ended, and tokens only rise.
async fn leases_never_overlap(db: &mut PgConnection) {
    let overlaps: Vec<String> = sqlx::query_scalar(
        "WITH leases AS (
             SELECT e.pool_id, e.account_id, e.fencing_token, e.happened_at AS begins,
                 (SELECT min(f.happened_at) FROM account_events f
                  WHERE f.pool_id = e.pool_id AND f.account_id = e.account_id
                    AND f.version > e.version AND f.to_status <> 'LOCKING') AS ends
             FROM account_events e WHERE e.reason = 'acquired'
         )
         SELECT format('%s: token %s [%s, %s) and token %s [%s, %s)', a.account_id,
             a.fencing_token, a.begins, a.ends, b.fencing_token, b.begins, b.ends)
         FROM leases a JOIN leases b USING (pool_id, account_id)
         WHERE a.fencing_token < b.fencing_token
           AND tstzrange(a.begins, COALESCE(a.ends, 'infinity'))
            && tstzrange(b.begins, COALESCE(b.ends, 'infinity'))",
    )
    .fetch_all(&mut *db)
    .await
    .unwrap();
    assert!(overlaps.is_empty(), "leases overlap: {overlaps:#?}");
    let falling: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM (
             SELECT fencing_token - lag(fencing_token) OVER w AS rise, reason
             FROM account_events
             WINDOW w AS (PARTITION BY pool_id, account_id ORDER BY version)
         ) e
         WHERE rise <> CASE reason WHEN 'acquired' THEN 1 ELSE 0 END",
    )
    .fetch_one(db)
    .await
    .unwrap();
    assert_eq!(falling, 0, "a fencing token changed otherwise than by rising at an acquisition");
}

/// Each event begins where the one before it ended, and the last one ends where the account is.
async fn events_tell_the_whole_story(db: &mut PgConnection) {
    let gaps: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM (
             SELECT version, from_status,
                 lag(to_status) OVER w AS before, lag(version) OVER w AS version_before
             FROM account_events
             WINDOW w AS (PARTITION BY pool_id, account_id ORDER BY version)
         ) e
         WHERE from_status IS DISTINCT FROM before OR version <> COALESCE(version_before, 0) + 1",
    )
    .fetch_one(&mut *db)
    .await
    .unwrap();
    assert_eq!(gaps, 0, "events with a gap between them");
    let astray: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM accounts a
         LEFT JOIN account_events e
             ON e.pool_id = a.pool_id AND e.account_id = a.account_id AND e.version = a.version
         WHERE e.to_status IS DISTINCT FROM a.status
            OR e.fencing_token IS DISTINCT FROM a.fencing_token
            OR e.balance_minor IS DISTINCT FROM a.balance_minor",
    )
    .fetch_one(db)
    .await
    .unwrap();
    assert_eq!(astray, 0, "accounts that are not where their last event left them");
}

/// An open redemption and its account name each other.
async fn open_redemptions_hold_their_accounts(db: &mut PgConnection) {
    let loose: i64 = sqlx::query_scalar(
        "SELECT count(*)
         FROM (SELECT * FROM redemptions
               WHERE state IN ('SUBMITTED', 'IN_DOUBT', 'NEEDS_REVIEW')) r
         FULL JOIN (SELECT * FROM accounts WHERE open_redemption_id IS NOT NULL) a
             ON a.pool_id = r.pool_id AND a.account_id = r.account_id
             AND a.open_redemption_id = r.redemption_id
         WHERE a.account_id IS NULL OR r.redemption_id IS NULL OR a.status <> 'LOCKING'",
    )
    .fetch_one(db)
    .await
    .unwrap();
    assert_eq!(loose, 0, "open redemptions whose account is not locked for them, or the reverse");
}

/// No column of any table, and no line that was logged, holds a code.
async fn no_code_is_in_clear(db: &mut PgConnection, code_prefix: &str) {
    for table in ["pools", "plans", "accounts", "account_events", "redemptions", "installation"] {
        let found: i64 = sqlx::query_scalar(AssertSqlSafe(format!(
            "SELECT count(*) FROM {table} t WHERE t::text LIKE $1"
        )))
        .bind(format!("%{code_prefix}%"))
        .fetch_one(&mut *db)
        .await
        .unwrap();
        assert_eq!(found, 0, "a code stands in clear in {table}");
    }
    let lines = logs::lines_with(code_prefix);
    assert!(lines.is_empty(), "codes in the logs: {lines:#?}");
}
