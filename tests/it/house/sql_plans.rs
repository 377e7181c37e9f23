//! How Postgres reads for statements: by which indexes, and how much.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};

use crate::support::{
    statements::{plan_as_the_store, statement},
    world::fresh_database,
};

/// The hot statements, with arguments as a lane gives them, and a day of a pool's history, which is
/// read page by page.
const HOT: [(&str, &str); 19] = [
    (
        "apply",
        "'p', 1, ARRAY[jsonb_populate_record(NULL::account_change, '{\"account_id\": \"a-00001\"}')], gen_random_uuid(), \
         '{}'",
    ),
    ("read_accounts", "'p', '{a-00001,a-00021}', '{q1,q2}', '{p,p}'"),
    ("follow", "'p', pg_current_snapshot()::text, gen_random_uuid()"),
    ("follow_outcomes", "'p', 1, 1, '{1,2}', 1, 1, 3, 100"),
    ("forget_changes", "'p', 1, 100"),
    ("list_due_leases", "'p', 100, '30 s', '{}'"),
    ("pools_with_expired_leases", "'30 s'"),
    ("claim_checks", "'p', 32, '1 min', '30 s', '{}', false"),
    ("pools_with_due_checks", "'30 s'"),
    ("claim_early_checks", "'p', 32, ARRAY[gen_random_uuid()], '1 s', '10 s', '{}', false"),
    ("pools_of_dead_servers", "ARRAY[gen_random_uuid()]"),
    ("find_open_by_id", "'holdfast', gen_random_uuid()"),
    ("find_open_by_task", "'holdfast', 't-1'"),
    ("claim_early_check", "'p', gen_random_uuid(), '5 s'"),
    (
        "begin",
        "'p', 1, ARRAY[jsonb_populate_record(NULL::account_change, '{\"account_id\": \"a-00001\"}')], '{q}', '{f}', \
         '{\"\\\\x01\"}', '{\"\\\\x01\"}', '{x}', '{5}', '{f}', '{1 min}', '{1 min}', '{holdfast}', '{1}', \
         gen_random_uuid(), '{1}', ARRAY[gen_random_uuid()], '{1}', '{\"\\\\x01\"}', '{1}'",
    ),
    ("get_living_redemption", "'p', '{\"\\\\x01\"}'"),
    (
        "list_redemptions",
        "'p', '019ab000-0000-7000-8000-000000000000', 200, NULL, NULL, NULL, NULL, now(), now(), \
         '019aa000-0000-7000-8000-000000000000', 1048576, NULL, NULL, NULL, NULL, NULL",
    ),
    ("list_accounts", "'p', 'a-00001', 200, NULL, NULL, NULL, 1048576, NULL, NULL, NULL"),
    (
        "defer",
        "'p', ARRAY[gen_random_uuid()], '{IN_DOUBT}', '{x}', '{1 min}', '{1}', '{f}', '{NULL}', \
         '{NULL}', '{NULL}', '{NULL}', '{NULL}', '{NULL}', '{0}', '{0}'",
    ),
];

#[tokio::test]
async fn no_hot_statement_reads_a_whole_table() {
    let database = fresh_database().await;
    let mut db = PgConnection::connect(&database.url).await.unwrap();
    fill(&mut db).await;
    for (name, plan) in plans(&mut db).await {
        let whole = plan.iter().find(|line| {
            line.contains("Seq Scan on accounts") || line.contains("Seq Scan on redemptions")
        });
        assert_eq!(whole, None, "{name}:\n{}", plan.join("\n"));
    }
    database.drop_database().await;
}

/// Statements that name each of their rows.
const OF_NAMED_ROWS: [&str; 4] = ["apply", "begin", "read_accounts", "defer"];

#[tokio::test]
async fn rows_are_looked_up_by_their_keys_also_where_most_pools_are_small() {
    let database = fresh_database().await;
    let mut db = PgConnection::connect(&database.url).await.unwrap();
    fill(&mut db).await;
    sqlx::raw_sql(
        "INSERT INTO pools SELECT n::text, 'EUR', '1 minute', '1 second', '1 hour', false, 'ACCEPT'
         FROM generate_series(1, 2000) n;
         INSERT INTO accounts (pool_id, account_id)
         SELECT p::text, n::text FROM generate_series(1, 2000) p, generate_series(1, 5) n;
         INSERT INTO redemptions (pool_id, redemption_id, account_id, fencing_token, request_id,
             holder, state, release_on_completion, code_fingerprint, code_last4, not_after,
             finished_at)
         SELECT pool_id, gen_random_uuid(), account_id, 1, account_id, 'h', 'FAILED', true,
             account_id::bytea, '', now(), now()
         FROM accounts WHERE pool_id <> 'p';
         ANALYZE;",
    )
    .execute(&mut db)
    .await
    .unwrap();
    for (name, plan) in plans(&mut db).await {
        let reads_the_pool = plan.windows(2).find(|lines| {
            let scan = lines[0].contains(" on accounts ") || lines[0].contains(" on redemptions ");
            let keys = lines[1].trim();
            scan && keys.starts_with("Index Cond: (pool_id =")
        });
        if OF_NAMED_ROWS.contains(&name) {
            assert_eq!(reads_the_pool, None, "{name}:\n{}", plan.join("\n"));
        }
    }
    database.drop_database().await;
}

/// Pages of the database that the statement touches which lists a batch's redemptions.
async fn pages_of_batch(db: &mut PgConnection, batch_id: &str) -> u64 {
    let explain = format!(
        "EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF) EXECUTE listing ('p', \
         'ffffffff-ffff-ffff-ffff-ffffffffffff', 1000, NULL, NULL, 'batch:{batch_id}:', \
         'batch:{batch_id};', NULL, NULL, '00000000-0000-0000-0000-000000000000', 1048576, NULL, NULL, NULL, NULL, \
         NULL)"
    );
    let rows = sqlx::raw_sql(AssertSqlSafe(explain)).fetch_all(db).await.unwrap();
    let lines: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    // The first one is of the whole statement.
    let buffers = lines.iter().find_map(|line| line.trim().strip_prefix("Buffers: shared "));
    let counts = buffers.unwrap().split(' ').filter_map(|count| count.split_once('='));
    counts.map(|(_, count)| count.parse::<u64>().unwrap()).sum()
}

#[tokio::test]
async fn a_list_of_a_batch_reads_nothing_of_the_pool_that_is_older() {
    let database = fresh_database().await;
    let mut db = PgConnection::connect(&database.url).await.unwrap();
    fill(&mut db).await;
    sqlx::raw_sql(
        "INSERT INTO redemptions (pool_id, redemption_id, account_id, fencing_token, request_id,
             holder, state, release_on_completion, code_fingerprint, code_last4, not_after,
             finished_at)
         VALUES ('p', 'ffffffff-0000-0000-0000-000000000000', 'a-00001', 1, 'batch:last:1', 'h',
             'FAILED', true, 'x', '', now(), now());
         ANALYZE;",
    )
    .execute(&mut db)
    .await
    .unwrap();
    plan_as_the_store(&mut db).await;
    let prepare = format!("PREPARE listing AS {}", statement("list_redemptions"));
    sqlx::raw_sql(AssertSqlSafe(prepare)).execute(&mut db).await.unwrap();
    for batch_id in ["last", "nothing"] {
        let pages = pages_of_batch(&mut db, batch_id).await;
        assert!(pages < 50, "{pages} pages are read of the batch {batch_id}");
    }
    drop(db);
    database.drop_database().await;
}

/// An index that many statements could use is taken for the way to a few rows while it is small.
#[tokio::test]
async fn the_indexes_of_polls_serve_nothing_else() {
    let database = fresh_database().await;
    let mut db = PgConnection::connect(&database.url).await.unwrap();
    fill(&mut db).await;
    // Whatever could make do with those of the looks does so now.
    let others = "DROP INDEX redemptions_open, redemptions_living_code";
    sqlx::raw_sql(others).execute(&mut db).await.unwrap();
    for (name, plan) in plans(&mut db).await {
        let own = match name {
            "list_due_leases" | "pools_with_expired_leases" => "leases_end",
            "claim_checks"
            | "pools_with_due_checks"
            | "claim_early_checks"
            | "pools_of_dead_servers" => "redemptions_due",
            _ => "",
        };
        for each in ["leases_end", "redemptions_due"] {
            let used = plan.iter().any(|line| line.contains(each));
            assert_eq!(used, each == own, "{name}, {each}:\n{}", plan.join("\n"));
        }
    }
    database.drop_database().await;
}

/// How Postgres goes about each hot statement, on connections such as the store's: one plan for any
/// arguments.
async fn plans(db: &mut PgConnection) -> Vec<(&'static str, Vec<String>)> {
    plan_as_the_store(db).await;
    let mut plans = Vec::new();
    for (name, arguments) in HOT {
        let sql = statement(name);
        let prepare = format!("PREPARE hot AS {sql}");
        sqlx::raw_sql(AssertSqlSafe(prepare)).execute(&mut *db).await.unwrap();
        let arguments = if arguments.is_empty() { String::new() } else { format!("({arguments})") };
        let explain = format!("EXPLAIN EXECUTE hot {arguments}");
        let rows = sqlx::raw_sql(AssertSqlSafe(explain)).fetch_all(&mut *db).await.unwrap();
        plans.push((name, rows.iter().map(|row| row.get(0)).collect()));
        sqlx::raw_sql("DEALLOCATE hot").execute(&mut *db).await.unwrap();
    }
    plans
}

/// 20,000 accounts, of which one in twenty is free and one in twenty locked, and a past redemption for each.
async fn fill(db: &mut PgConnection) {
    sqlx::raw_sql(
        "INSERT INTO pools VALUES ('p', 'EUR', '1 minute', '1 second', '1 hour', false, 'ACCEPT');
         INSERT INTO plans VALUES ('p', 'plan', 1000);
         INSERT INTO accounts (pool_id, account_id, plan_id, status, resume_status, fencing_token,
             holder, lease_request_id, lease_acquired_at, lease_expires_at)
         SELECT 'p', format('a-%s', lpad(n::text, 5, '0')), 'plan',
             CASE n % 20 WHEN 0 THEN 'WAITING' WHEN 1 THEN 'LOCKING' ELSE 'COMPLETED' END, 'WAITING', 1, 'h', n::text,
             now(), now() + interval '1 hour'
         FROM generate_series(1, 20000) n;
         INSERT INTO accounts (pool_id, account_id)
         SELECT 'p', format('b-%s', lpad(n::text, 5, '0')) FROM generate_series(1, 10000) n;
         INSERT INTO redemptions (pool_id, redemption_id, account_id, fencing_token, request_id,
             holder, state, release_on_completion, code_fingerprint, code_last4, not_after,
             finished_at)
         SELECT 'p', gen_random_uuid(), account_id, 1, account_id, 'h', 'FAILED', true,
             account_id::bytea, '', now(), now()
         FROM accounts;",
    )
    .execute(&mut *db)
    .await
    .unwrap();
    sqlx::raw_sql("ANALYZE").execute(db).await.unwrap();
}
