//! The rules that every statement of the program keeps: those that its text or its plan can show.
//! `CONTRIBUTING.md` says why each is there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use holdfast::store::pg::schema::RIGHTS;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};

use crate::support::{
    statements::{plan_as_the_store, statement, statement_files},
    world::fresh_database,
};

/// Statements that are not of one pool, each for a reason that its comment gives.
const OF_NO_POOL: [&str; 78] = [
    "analyze",
    "backend",
    "beat",
    "cancel_backend",
    "changed_plans",
    "claim_try",
    "commit",
    "count_dead_deliveries",
    "count_fingerprints",
    "count_sealed",
    "end_slot",
    "ensure_limits",
    "ensure_slots",
    "extend_brake",
    "facts",
    "find_open_by_id",
    "find_open_by_task",
    "get_id_of_key",
    "get_newest_profile",
    "get_profile",
    "grown_tables",
    "hold_calls",
    "insert_key",
    "insert_profile",
    "insert_token",
    "install",
    "list_audit_events",
    "list_beats",
    "list_claims",
    "list_credentials",
    "list_due_reversals",
    "list_free_subscriptions",
    "list_keys",
    "list_limits",
    "list_open_codes",
    "list_pools",
    "list_profile_versions",
    "list_profiles",
    "list_settings",
    "list_status",
    "list_subscription_secrets",
    "list_tokens",
    "list_writers",
    "living_tokens",
    "may_count_rows",
    "missing_functions",
    "missing_objects",
    "missing_rights",
    "newest_beat",
    "note_failing",
    "note_keys",
    "note_token_use",
    "note_working",
    "oldest_transaction",
    "ping",
    "plans_with_days",
    "pools_of_dead_servers",
    "pools_with_due_checks",
    "pools_with_expired_leases",
    "put_token",
    "release_claims",
    "remove_server",
    "remove_servers",
    "reseal_codes",
    "reseal_credentials",
    "reseal_subscription_secrets",
    "reserve_call",
    "reserve_key",
    "retire_keys",
    "revoke_token",
    "schema_state",
    "servers_without_key",
    "serving_process",
    "take_slot",
    "time_until",
    "token_changes",
    "unretire_key",
    "use_key",
];

/// Statements of `holdfast keys`, which its owner runs: a role that serves needs no right for them.
const OF_ROTATION: [&str; 8] = [
    "insert_key",
    "reseal_codes",
    "reseal_credentials",
    "reseal_subscription_secrets",
    "retire_keys",
    "unretire_key",
    "use_key",
    "install",
];

/// Tables of no pool that statements of a pool read beside.
const BESIDE_POOLS: [&str; 2] = ["installation", "secret_keys"];

const TABLES: [&str; 23] = [
    "pools",
    "plans",
    "accounts",
    "leases",
    "redemptions",
    "redemption_outcomes",
    "subscriptions",
    "deliveries",
    "reversals",
    "superseded_resolutions",
    "audit_events",
    "account_events",
    "account_changes",
    "account_credentials",
    "installation",
    "secret_keys",
    "servers",
    "providers",
    "provider_keys",
    "provider_limits",
    "provider_slots",
    "tokens",
    "token_changes",
];

/// The statements, by name, without their comments and with single spaces.
fn statements() -> BTreeMap<String, String> {
    let statements: BTreeMap<_, _> = statement_files()
        .into_iter()
        .map(|(name, path)| {
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.starts_with("-- "), "{} has no comment at its head", path.display());
            (name, plain(&text))
        })
        .collect();
    assert!(statements.len() > 30, "{:?}", statements.keys());
    statements
}

fn plain(text: &str) -> String {
    let code: Vec<_> = text.lines().map(|line| line.split("--").next().unwrap()).collect();
    let spaced = code.join(" ").replace('(', " ( ").replace(')', " ) ").replace(',', " , ");
    spaced.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The tables that a statement refers to: (table, alias, the word before it).
fn references(sql: &str) -> Vec<(String, String, String)> {
    let words: Vec<_> = sql.split(' ').collect();
    let mut found = Vec::new();
    for (place, word) in words.iter().enumerate().skip(1) {
        let before = words[place - 1].to_uppercase();
        if !TABLES.contains(word) || !["FROM", "JOIN", "UPDATE", "INTO"].contains(&&*before) {
            continue;
        }
        let mut alias = words.get(place + 1).copied().unwrap_or_default();
        if alias.eq_ignore_ascii_case("AS") {
            alias = words[place + 2];
        }
        found.push(((*word).to_owned(), alias.to_owned(), before));
    }
    found
}

#[test]
fn every_statement_serves_one_pool_and_says_so_of_every_table() {
    for (name, sql) in statements() {
        if OF_NO_POOL.contains(&name.as_str()) {
            continue;
        }
        let references = references(&sql);
        assert!(!references.is_empty(), "{name} refers to no table");
        for (table, alias, verb) in references {
            if BESIDE_POOLS.contains(&&*table) && verb != "INTO" {
                continue;
            }
            if verb == "INTO" {
                let inserted = sql.contains("( pool_id ,")
                    && (sql.contains("SELECT $1 ,") || sql.contains("VALUES ( $1 ,"));
                assert!(inserted, "{name} does not insert $1 as the pool_id of {table}");
            } else {
                let guard = format!("{alias}.pool_id = $1");
                assert!(sql.contains(&guard), "{name} lacks {guard:?} for {table}");
            }
        }
    }
}

#[test]
fn the_rights_that_a_server_asks_for_are_those_that_its_statements_use() {
    let mut used = BTreeSet::new();
    for (name, sql) in &statements() {
        // The first server to start does what `install` does, once.
        if OF_ROTATION.contains(&&**name) {
            continue;
        }
        for (table, alias, verb) in references(sql) {
            let right = match verb.as_str() {
                "INTO" => "INSERT",
                "UPDATE" => "UPDATE",
                _ if sql.contains(&format!("DELETE FROM {table}")) => "DELETE",
                _ => "SELECT",
            };
            used.insert((table.clone(), right));
            // Events are only added.
            if verb == "INTO" && sql.contains("DO UPDATE SET") && table != "audit_events" {
                used.insert((table.clone(), "UPDATE"));
            }
            // To lock a row is to be allowed to change it; what a statement returns or compares, it reads.
            if sql.contains(&format!("UPDATE OF {alias}")) {
                used.insert((table.clone(), "UPDATE"));
            }
            used.insert((table, "SELECT"));
        }
    }
    // By the trigger of changes by hand, too.
    used.insert(("account_events".to_owned(), "INSERT"));
    // By the triggers of tokens.
    used.insert(("token_changes".to_owned(), "UPDATE"));
    let asked: BTreeSet<_> = RIGHTS
        .iter()
        .flat_map(|(table, rights)| rights.iter().map(|right| ((*table).to_owned(), *right)))
        .collect();
    assert_eq!(asked, used);
}

#[test]
fn a_missing_pool_is_noticed() {
    let sql =
        plain("SELECT 1 FROM accounts a JOIN plans p ON p.pool_id = $1 WHERE a.account_id = $2");
    let missing: Vec<_> = references(&sql)
        .into_iter()
        .filter(|(_, alias, _)| !sql.contains(&format!("{alias}.pool_id = $1")))
        .collect();
    assert_eq!(missing.len(), 1);
}

#[test]
fn every_statement_is_one_and_leaves_nothing_open() {
    let forbidden = [
        ";",
        "BEGIN",
        "COMMIT",
        "clock_timestamp",
        "statement_timestamp",
        "NOTIFY",
        "advisory",
        "set_config",
        "nextval",
        "current_setting",
        "FOR UPDATE",
    ];
    for (name, sql) in statements() {
        for word in forbidden {
            // Whether the server takes writes is a setting of its own; the ping asks for no other.
            let is_the_ping_s = name == "ping" && word == "current_setting";
            assert!(is_the_ping_s || !sql.contains(word), "{name} contains {word}");
        }
    }
}

/// Statements that insert beside what they change: what they insert is the event of the change, its redemption, or a new
/// account's credentials, or the first secret key. Those of people are seldom.
const INSERT_BESIDE: [&str; 24] = [
    "apply",
    "begin",
    "begin_reversal",
    "delete_plan",
    "delete_pool",
    "delete_subscription",
    "fail_reversal",
    "hold_delivery",
    "insert_accounts",
    "insert_plan",
    "insert_pool",
    "insert_profile",
    "insert_subscription",
    "insert_token",
    "install",
    "remove_credentials",
    "retry_deliveries",
    "revoke_token",
    "rotate_subscription_secret",
    "set_credentials",
    "update_plan",
    "update_pool",
    "update_subscription",
    "use_key",
];

#[test]
fn a_statement_inserts_into_a_table_once_and_beside_others_only_where_it_must() {
    for (name, sql) in statements() {
        let inserts = sql.matches("INSERT INTO").count();
        let is_alone = inserts == 0 || inserts == 1 && sql.starts_with("INSERT INTO");
        assert!(is_alone || INSERT_BESIDE.contains(&name.as_str()), "{name}");
        for table in TABLES {
            let times = sql.matches(&format!("INSERT INTO {table} ")).count();
            assert!(times <= 1, "{name} inserts into {table} {times} times");
        }
    }
}

#[test]
fn a_statement_changes_a_table_once_and_then_reads_only_what_it_changed() {
    for (name, sql) in statements() {
        let updated: Vec<_> =
            references(&sql).into_iter().filter(|(_, _, verb)| verb == "UPDATE").collect();
        for (table, ..) in &updated {
            let times = updated.iter().filter(|(other, ..)| other == table).count();
            assert_eq!(times, 1, "{name} updates {table} {times} times");
        }
        if sql.starts_with("WITH ") {
            let last = &sql[sql.rfind(" SELECT ").unwrap()..];
            let read = references(last);
            assert!(read.is_empty(), "{name}'s last SELECT reads {read:?}, not its CTEs");
        }
    }
}

#[test]
fn rows_are_locked_in_the_order_of_their_keys_or_not_waited_for() {
    for (name, sql) in statements() {
        for (place, _) in sql.match_indices("FOR NO KEY UPDATE") {
            let before = &sql[..place];
            let select = &before[before.rfind("SELECT").unwrap()..];
            let order = select.rfind("ORDER BY").map(|at| &select[at..]);
            let by_key = order.is_some_and(|order| {
                let first = order.split(' ').nth(2).unwrap_or_default();
                let keys = [".account_id", ".redemption_id", ".pool_id", ".plan_id"];
                keys.iter().any(|key| first.ends_with(key))
            });
            let skips = sql[place..].starts_with("FOR NO KEY UPDATE OF a SKIP LOCKED")
                || sql[place..].starts_with("FOR NO KEY UPDATE OF r SKIP LOCKED")
                || sql[place..].starts_with("FOR NO KEY UPDATE OF k SKIP LOCKED")
                || sql[place..].starts_with("FOR NO KEY UPDATE SKIP LOCKED");
            assert!(by_key || skips, "{name} locks rows in no order: {select}");
        }
    }
}

#[test]
fn the_time_of_a_statement_is_not_taken_where_it_cannot_be_pushed_down() {
    for (name, sql) in statements() {
        for (open, close) in [("CASE", "END"), ("COALESCE (", ")")] {
            for (place, _) in sql.match_indices(open) {
                let inside = &sql[place..];
                let inside = &inside[..inside.find(close).unwrap_or(inside.len())];
                assert!(!inside.contains("now ( )"), "{name}: now() inside {open}");
            }
        }
        if sql.starts_with("WITH ") {
            for (place, _) in sql.match_indices("RETURNING") {
                let inside = &sql[place..];
                let inside = &inside[..inside.find(" ) ").unwrap_or(inside.len())];
                assert!(!inside.contains("now ("), "{name}: now() in RETURNING");
            }
        }
    }
}

#[test]
fn an_update_repeats_the_guard_of_the_rows_that_were_locked_for_it() {
    for (name, sql) in statements() {
        let of_account = sql.find("UPDATE accounts a SET");
        let Some(update) = of_account.or(sql.find("UPDATE redemptions r SET")) else {
            continue;
        };
        if !sql.starts_with("WITH ") {
            continue;
        }
        let guard = &sql[update..];
        let guard = &guard[guard.find("WHERE").unwrap()..];
        let guard = &guard[..guard.find("RETURNING").unwrap()];
        let guarded = ["a.version = k.version", "a.status", "r.state", "r.finished_at"]
            .iter()
            .any(|column| guard.contains(column));
        assert!(guarded, "{name}'s UPDATE does not look at the state again: {guard}");
    }
}

#[test]
fn every_file_of_a_statement_is_used() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut code = String::new();
    read_sources(&source, &mut code);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in statement_files().values() {
        let path = file.strip_prefix(root).unwrap().display();
        assert!(code.contains(&format!("\"{path}\"")), "{path} is not used");
    }
}

fn read_sources(folder: &Path, code: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_sources(&path, code);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            code.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}

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
