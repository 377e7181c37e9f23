//! The rules that every statement of the program keeps: those that its text can show.
//! `CONTRIBUTING.md` says why each is there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use holdfast::store::pg::schema::RIGHTS;

use crate::support::statements::statement_files;

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
