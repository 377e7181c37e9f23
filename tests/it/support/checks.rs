//! Checks after every test that starts servers, whatever it was about. Each answers with the promises
//! that were broken; a crash undoes none of them.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};

use super::{
    books::Books,
    checks_of_plans::OF_PLANS,
    journal::{Journal, Told},
    logs,
    wait::eventually,
};

/// How long what is in doubt may take to be settled once the provider behaves.
const SETTLE: Duration = Duration::from_secs(40);

/// What every credential holds that a test gives an account: nothing that is stored or logged may hold it.
pub(crate) const CREDENTIAL_MARK: &str = "HFCRED";

/// The same of every secret of a provider.
const SECRET_MARK: &str = "HFSECR";

/// A promise that was broken, for people.
pub(crate) type Broken = String;

/// What the checks look at.
pub(crate) struct Scene<'a> {
    /// The database, which nobody uses any more.
    pub(crate) url: &'a str,
    /// The ledger of the provider that speaks the built-in contract: the oracle.
    pub(crate) ledger: &'a Path,
    /// Those of other providers.
    pub(crate) others: &'a [Books],
    /// How every code begins that was redeemed.
    pub(crate) code_prefix: &'a str,
    /// What callers were told.
    pub(crate) journal: &'a Journal,
    /// The log files of processes.
    pub(crate) logs: &'a [PathBuf],
}

/// Waits until no outcome is unknown but those that a person must find out.
pub(crate) async fn everything_settles(url: &str) {
    let mut db = PgConnection::connect(url).await.unwrap();
    eventually(SETTLE, "every redemption in doubt is settled", async || {
        (open_redemptions(&mut db).await == 0).then_some(())
    })
    .await;
}

/// How many outcomes are unknown that Holdfast finds out by itself.
pub(crate) async fn open_redemptions(db: &mut PgConnection) -> i64 {
    let count = "SELECT (SELECT count(*) FROM redemptions WHERE state IN ('SUBMITTED', 'IN_DOUBT'))
        + (SELECT count(*) FROM reversals WHERE state IN ('REQUESTED', 'IN_DOUBT'))";
    sqlx::query_scalar(count).fetch_one(db).await.unwrap()
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

/// Panics with every promise that was broken.
pub(crate) async fn assert_invariants(scene: &Scene<'_>) {
    let broken = broken_promises(scene).await;
    assert!(broken.is_empty(), "broken promises: {broken:#?}");
}

/// Every promise that was broken.
pub(crate) async fn broken_promises(scene: &Scene<'_>) -> Vec<Broken> {
    let mut db = PgConnection::connect(scene.url).await.unwrap();
    // 1, 2 and 5.
    let mut broken = Books::built_in(scene.ledger).differences(&mut db).await;
    for books in scene.others {
        broken.extend(books.differences(&mut db).await);
    }
    broken.extend(sql_finds_nothing(&mut db).await);
    broken.extend(nothing_told_is_undone(&mut db, scene.journal).await);
    broken.extend(no_secret_is_in_clear(&mut db, scene).await);
    broken
}

/// What the database can tell by itself: a name, and a statement that finds each broken case as text.
const BY_SQL: [(&str, &str); 11] = [
    (
        "there is one account of each id",
        "SELECT format('%s of %s', count(*), account_id) FROM accounts
         GROUP BY pool_id, account_id HAVING count(*) > 1",
    ),
    (
        // 5, by account.
        "a balance is what it began with, what was credited since, and what people corrected",
        "SELECT format('%s has %s', a.account_id, a.balance_minor) FROM accounts a
         JOIN account_events first USING (pool_id, account_id)
         WHERE first.version = 1
           AND a.balance_minor <> first.balance_minor + (
               SELECT COALESCE(sum(r.amount_minor), 0) FROM redemptions r
               WHERE r.pool_id = a.pool_id AND r.account_id = a.account_id
                 AND r.state = 'SUCCEEDED' AND r.reversed_at IS NULL)
               + (SELECT COALESCE(sum(e.balance_minor - before.balance_minor), 0) FROM account_events e
                  JOIN account_events before
                      ON before.pool_id = e.pool_id AND before.account_id = e.account_id
                      AND before.version = e.version - 1
                  WHERE e.pool_id = a.pool_id AND e.account_id = a.account_id
                    AND e.reason = 'balance_corrected')",
    ),
    (
        "what was taken back has one reversal that says so, and what was not has none",
        "SELECT r.redemption_id::text FROM redemptions r
         WHERE (r.reversed_at IS NOT NULL) <> EXISTS (SELECT FROM reversals v
             WHERE v.pool_id = r.pool_id AND v.redemption_id = r.redemption_id
               AND v.state = 'SUCCEEDED')",
    ),
    (
        "each reversal that succeeded took the amount off once, and no other did",
        "SELECT format('%s: %s events', r.redemption_id, count(e.version)) FROM redemptions r
         LEFT JOIN account_events e
             ON e.pool_id = r.pool_id AND e.account_id = r.account_id
             AND e.redemption_id = r.redemption_id AND e.reason = 'reversed'
         GROUP BY r.redemption_id, r.reversed_at
         HAVING count(e.version) <> (r.reversed_at IS NOT NULL)::int",
    ),
    (
        // 3.
        "by the database's times no lease begins before the one before it ended",
        "WITH leases AS (
             SELECT pool_id, account_id, fencing_token,
                 min(happened_at) FILTER (WHERE reason = 'acquired') AS begins,
                 min(happened_at) FILTER (WHERE to_status <> 'LOCKING') AS ends
             FROM account_events WHERE fencing_token > 0
             GROUP BY pool_id, account_id, fencing_token
         ), times AS (
             SELECT *, tstzrange(begins, GREATEST(begins, COALESCE(ends, 'infinity'))) AS held
             FROM leases WHERE begins IS NOT NULL
         )
         SELECT format('%s: token %s %s and token %s %s', a.account_id,
             a.fencing_token, a.held, b.fencing_token, b.held)
         FROM times a JOIN times b USING (pool_id, account_id)
         WHERE a.fencing_token < b.fencing_token AND a.held && b.held",
    ),
    (
        "a fencing token rises by one at an acquisition, and only there",
        "SELECT format('%s: %s by %s', account_id, reason, rise) FROM (
             SELECT account_id, fencing_token - lag(fencing_token) OVER w AS rise, reason
             FROM account_events
             WINDOW w AS (PARTITION BY pool_id, account_id ORDER BY version)
         ) e
         WHERE rise <> CASE reason WHEN 'acquired' THEN 1 ELSE 0 END",
    ),
    (
        "a redemption is begun under the lease that was out then",
        "SELECT format('redemption %s under token %s', r.redemption_id, r.fencing_token)
         FROM redemptions r
         WHERE NOT EXISTS (
             SELECT FROM account_events e
             WHERE e.pool_id = r.pool_id AND e.account_id = r.account_id
               AND e.fencing_token = r.fencing_token AND e.reason IN ('redeem_begun', 'acquired')
               AND e.redemption_id = r.redemption_id AND e.lease_expires_at > e.happened_at)",
    ),
    (
        "the code of what is settled is wiped",
        "SELECT redemption_id::text FROM redemptions
         WHERE state IN ('SUCCEEDED', 'FAILED') AND code_ciphertext IS NOT NULL",
    ),
    (
        "each event begins where the one before it ended",
        "SELECT format('%s: version %s', account_id, version) FROM (
             SELECT account_id, version, from_status,
                 lag(to_status) OVER w AS before, lag(version) OVER w AS version_before
             FROM account_events
             WINDOW w AS (PARTITION BY pool_id, account_id ORDER BY version)
         ) e
         WHERE from_status IS DISTINCT FROM before OR version <> COALESCE(version_before, 0) + 1",
    ),
    (
        "an account is where its last event left it",
        "SELECT a.account_id FROM accounts a
         LEFT JOIN account_events e
             ON e.pool_id = a.pool_id AND e.account_id = a.account_id AND e.version = a.version
         WHERE e.to_status IS DISTINCT FROM a.status
            OR e.fencing_token IS DISTINCT FROM a.fencing_token
            OR e.balance_minor IS DISTINCT FROM a.balance_minor",
    ),
    (
        // 4: what is locked past its lease has one of these.
        "an open redemption and its locked account name each other",
        "SELECT format('redemption %s, account %s', r.redemption_id, a.account_id)
         FROM (SELECT * FROM redemptions
               WHERE state IN ('SUBMITTED', 'IN_DOUBT', 'NEEDS_REVIEW')) r
         FULL JOIN (SELECT * FROM accounts WHERE open_redemption_id IS NOT NULL) a
             ON a.pool_id = r.pool_id AND a.account_id = r.account_id
             AND a.open_redemption_id = r.redemption_id
         WHERE a.account_id IS NULL OR r.redemption_id IS NULL OR a.status <> 'LOCKING'",
    ),
];

async fn sql_finds_nothing(db: &mut PgConnection) -> Vec<Broken> {
    let mut broken = found(db, &BY_SQL).await;
    broken.extend(broken_plans(db).await);
    broken
}

/// The promises about plans and their accounts that were broken.
pub(crate) async fn broken_plans(db: &mut PgConnection) -> Vec<Broken> {
    found(db, &OF_PLANS).await
}

async fn found(db: &mut PgConnection, promises: &[(&str, &'static str)]) -> Vec<Broken> {
    let mut broken = Vec::new();
    for (promise, sql) in promises {
        let found: Vec<String> = sqlx::query_scalar(*sql).fetch_all(&mut *db).await.unwrap();
        broken.extend(found.into_iter().take(20).map(|found| format!("{promise}: {found}")));
    }
    broken
}

/// 6 and 7: what a caller was told is still so. A failure may have turned out to be a credit.
async fn nothing_told_is_undone(db: &mut PgConnection, journal: &Journal) -> Vec<Broken> {
    let mut leases = HashSet::new();
    let mut ended = HashSet::new();
    let events = "SELECT pool_id, account_id, fencing_token, reason, to_status FROM account_events";
    for row in sqlx::query(events).fetch_all(&mut *db).await.unwrap() {
        let lease: (String, String, i64) = (row.get(0), row.get(1), row.get(2));
        if row.get::<String, _>("to_status") != "LOCKING" {
            ended.insert(lease.clone());
        }
        if row.get::<String, _>("reason") == "acquired" {
            leases.insert(lease);
        }
    }
    let mut outcomes = HashMap::new();
    let redemptions = "SELECT redemption_id::text, state, amount_minor FROM redemptions";
    for row in sqlx::query(redemptions).fetch_all(db).await.unwrap() {
        let outcome: (String, Option<i64>) = (row.get(1), row.get(2));
        outcomes.insert(row.get::<String, _>(0), outcome);
    }
    let holds = |told: &Told| match told {
        Told::Leased { pool_id, account_id, token } => {
            leases.contains(&(pool_id.clone(), account_id.clone(), *token))
        }
        Told::Released { pool_id, account_id, token } => {
            ended.contains(&(pool_id.clone(), account_id.clone(), *token))
        }
        Told::Settled { redemption_id, state, amount_minor } => match outcomes.get(redemption_id) {
            Some((now, amount)) if *state == "SUCCEEDED" => {
                now == state && *amount == Some(*amount_minor)
            }
            Some((now, _)) => now == state || now == "SUCCEEDED",
            None => false,
        },
    };
    let told = journal.entries();
    let undone = told.iter().filter(|told| !holds(told));
    undone.map(|told| format!("a caller was told {told:?}, which is not so any more")).collect()
}

/// 8: no column of any table, and no line that was logged, holds a code, a credential or a secret, in clear or in hex.
async fn no_secret_is_in_clear(db: &mut PgConnection, scene: &Scene<'_>) -> Vec<Broken> {
    let mut broken = Vec::new();
    let tables = "SELECT relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
                  WHERE relkind = 'r' AND nspname = 'public'";
    let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&mut *db).await.unwrap();
    let marks =
        [("code", scene.code_prefix), ("credential", CREDENTIAL_MARK), ("secret", SECRET_MARK)];
    for (what, mark) in marks {
        for table in &tables {
            let count = format!("SELECT count(*) FROM {table} t WHERE t::text LIKE ANY ($1)");
            let found: i64 = sqlx::query_scalar(AssertSqlSafe(count))
                .bind([format!("%{mark}%"), format!("%{}%", hex::encode(mark))])
                .fetch_one(&mut *db)
                .await
                .unwrap();
            if found > 0 {
                broken.push(format!("{what}s stand in clear in {table}, in {found} rows"));
            }
        }
        let logged = logs::lines_with(mark);
        broken.extend(logged.iter().map(|line| format!("a {what} was logged: {line}")));
        for log in scene.logs {
            let text = fs::read(log).unwrap_or_default();
            if String::from_utf8_lossy(&text).contains(mark) {
                broken.push(format!("a {what} stands in the log {}", log.display()));
            }
        }
    }
    broken
}
