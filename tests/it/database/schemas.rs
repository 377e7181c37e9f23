//! Installations in schemas of their own, and people who change their tables by hand.

use holdfast::{
    domain::database::{Address, SqlName},
    rpc::pb::{AccountStatus, RedemptionState},
    store::Store,
};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _};

use crate::support::{
    cluster::{Template, TestDatabase},
    world::{World, lease},
};

/// A database with nothing in it.
async fn empty_database() -> TestDatabase {
    static EMPTY: Template = Template::new("empty_template");
    EMPTY.fresh_database(async |_| Ok(())).await
}

/// The URL with a search_path, as people set one.
fn with_path(url: &str, search_path: &str) -> String {
    format!("{url}&options=-csearch_path%3D{search_path}")
}

async fn connect(url: &str) -> PgConnection {
    PgConnection::connect(url).await.unwrap()
}

async fn run(db: &mut PgConnection, sql: &str) {
    let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(db).await;
    done.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

async fn refusal(db: &mut PgConnection, sql: &str) -> String {
    let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(db).await;
    done.map(|_| ()).unwrap_err().to_string()
}

async fn count(db: &mut PgConnection, table: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM {table}");
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(db).await.unwrap()
}

async fn migrate(url: &str) {
    let store = Store::open(&url.to_owned().into(), 4).unwrap();
    store.migrate().await.unwrap();
    store.check_rights().await.unwrap();
    store.close().await;
}

/// Two installations in the schemas `one` and `"Two's own"`, the second by the search_path of a role.
struct Two {
    database: TestDatabase,
    one: String,
    other: String,
}

impl Two {
    async fn new() -> Self {
        let database = empty_database().await;
        let mut db = connect(&database.url).await;
        let name: String =
            sqlx::query_scalar("SELECT current_database()").fetch_one(&mut db).await.unwrap();
        run(&mut db, "CREATE SCHEMA one; CREATE SCHEMA \"Two's own\"").await;
        let role = format!("two_{name}");
        run(&mut db, &format!("CREATE ROLE {role} LOGIN SUPERUSER")).await;
        let path = format!("ALTER ROLE {role} SET search_path = \"Two's own\"");
        run(&mut db, &path).await;
        let one = with_path(&database.url, "one");
        let other = database.url.replace("holdfast:none@", &format!("{role}:none@"));
        migrate(&one).await;
        migrate(&other).await;
        Self { database, one, other }
    }
}

#[tokio::test]
async fn functions_of_the_schema_find_what_they_name_whatever_the_search_path_is() {
    let two = Two::new().await;
    for url in [&two.one, &two.other] {
        let mut db = connect(url).await;
        let rows = sqlx::query(
            "SELECT p.oid::regprocedure::text AS name, p.prosrc, p.prosqlbody IS NOT NULL AS bound,
                p.proconfig, quote_ident(n.nspname) AS schema
             FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
             WHERE n.nspname = current_schema()",
        )
        .fetch_all(&mut db)
        .await
        .unwrap();
        let named =
            "SELECT relname::text FROM pg_class WHERE relnamespace = quote_ident(current_schema())::regnamespace
                     UNION SELECT proname::text || '(' FROM pg_proc
                     WHERE pronamespace = quote_ident(current_schema())::regnamespace";
        let named: Vec<String> = sqlx::query_scalar(named).fetch_all(&mut db).await.unwrap();
        assert!(rows.len() >= 8 && named.len() > 20, "{} functions, {named:?}", rows.len());
        for row in rows {
            let (name, schema): (String, String) = (row.get("name"), row.get("schema"));
            let pinned = format!("search_path=pg_catalog, {schema}, pg_temp");
            let settings: Option<Vec<String>> = row.get("proconfig");
            if row.get("bound") || settings.is_some_and(|it| it.contains(&pinned)) {
                continue;
            }
            let found = unqualified(&row.get::<String, _>("prosrc"), &schema, &named);
            assert_eq!(found, [""; 0], "{name} names what its caller's search_path decides");
        }
    }
    two.database.drop_database().await;
}

/// The tables and functions that a function names without their schema.
fn unqualified(source: &str, schema: &str, named: &[String]) -> Vec<String> {
    let code: Vec<_> = source.lines().map(|line| line.split("--").next().unwrap()).collect();
    let code = code.join(" ").replace(&format!("{schema}."), "\u{1}");
    let words: Vec<_> = code.split_whitespace().collect();
    let mut found = Vec::new();
    for (place, word) in words.iter().enumerate() {
        let before = place.checked_sub(1).map_or("", |before| words[before]).to_uppercase();
        let of_table = ["FROM", "JOIN", "INTO", "UPDATE"].contains(&&*before);
        let bare = |name: &&String| match name.strip_suffix('(') {
            // What stands before its name is part of another word, or the schema's mark.
            Some(_) => word.match_indices(name.as_str()).any(|(at, _)| {
                let before = word[..at].chars().next_back();
                before.is_none_or(|it| it != '\u{1}' && it != '_' && !it.is_alphanumeric())
            }),
            None => of_table && word.trim_end_matches([';', ',', ')']) == name.as_str(),
        };
        found.extend(named.iter().filter(bare).cloned());
    }
    found
}

#[test]
fn a_name_without_its_schema_is_noticed() {
    let named = ["accounts".to_owned(), "plan_room(".to_owned()];
    let find = |source| unqualified(source, "hf", &named);
    assert_eq!(find("UPDATE accounts a SET x = plan_room(1)"), ["accounts", "plan_room("]);
    assert_eq!(find("UPDATE hf.accounts a SET x = hf.plan_room(1)"), [""; 0]);
    assert_eq!(find("-- UPDATE accounts\nSELECT my_plan_room(1)"), [""; 0]);
}

/// What makes a pool, a plan and an account, and changes them in all ways that have a trigger.
const BY_HAND: [&str; 6] = [
    "INSERT INTO S.pools (pool_id, currency_code, default_lease, min_lease, max_lease, amount_mismatch)
     VALUES ('p', 'EUR', '1 min', '1 s', '1 h', 'ACCEPT')",
    "INSERT INTO S.plans (pool_id, plan_id, target_minor) VALUES ('p', 's', 5000)",
    "INSERT INTO S.accounts (pool_id, account_id, plan_id) VALUES ('p', 'a', 's'), ('p', 'b', NULL)",
    "UPDATE S.accounts SET status = 'LOCKING', resume_status = 'WAITING', holder = 'me',
        lease_request_id = 'r', lease_acquired_at = now(), lease_expires_at = now(), fencing_token = 1
     WHERE account_id = 'a'",
    "INSERT INTO S.redemptions (pool_id, redemption_id, account_id, fencing_token, request_id, holder, state,
        release_on_completion, code_fingerprint, code_ciphertext, code_last4, not_after)
     VALUES ('p', '01890a5d-ac96-774b-bcce-b302099a8057', 'a', 1, 'r', 'me', 'SUBMITTED', false, 'f', 'c', '', now())",
    "UPDATE S.accounts SET open_redemption_id = '01890a5d-ac96-774b-bcce-b302099a8057' WHERE account_id = 'a'",
];

/// What is refused, by which words.
const REFUSED: [(&str, &str); 3] = [
    ("DELETE FROM S.accounts WHERE account_id = 'a'", "account a of pool p has redemptions"),
    ("UPDATE S.accounts SET account_id = 'z' WHERE account_id = 'b'", "keeps its id"),
    ("UPDATE S.account_events SET reason = 'x'", "account_events is append-only"),
];

#[tokio::test]
async fn a_person_s_changes_leave_their_events_in_the_installation_that_they_name() {
    // As others' search_path, as none, and as one that a temporary table of the same name stands before.
    for path in ["\"Two's own\"", "''", "pg_temp, \"Two's own\""] {
        let two = Two::new().await;
        let mut db = connect(&two.database.url).await;
        run(&mut db, &format!("SET search_path = {path}")).await;
        run(
            &mut db,
            "CREATE TEMP TABLE account_events (x int); CREATE TEMP TABLE accounts (x int)",
        )
        .await;
        for sql in BY_HAND {
            run(&mut db, &sql.replace("S.", "one.")).await;
        }
        for (sql, words) in REFUSED {
            let printed = refusal(&mut db, &sql.replace("S.", "one.")).await;
            assert!(printed.contains(words), "{path}: {sql}: {printed}");
        }
        // Two accounts that were made, one that was locked, and marked by its redemption.
        assert_eq!(count(&mut db, "one.account_events").await, 4, "{path}");
        assert_eq!(count(&mut db, "\"Two's own\".account_events").await, 0, "{path}");
        assert_eq!(count(&mut db, "pg_temp.account_events").await, 0, "{path}");
        let marked = "SELECT count(*) FROM one.accounts WHERE open_redemption_id IS NOT NULL";
        assert_eq!(sqlx::query_scalar::<_, i64>(marked).fetch_one(&mut db).await.unwrap(), 1);
        drop(db);
        two.database.drop_database().await;
    }
}

#[tokio::test]
async fn two_installations_serve_from_one_database_and_neither_writes_into_the_other() {
    let two = Two::new().await;
    for (url, schema, number) in [(&two.one, "one", 1), (&two.other, "\"Two's own\"", 2)] {
        let settings = |args: &mut holdfast::config::ServeArgs| {
            args.database_url = Some(url.clone().into());
        };
        let mut world = World::with(settings, 1).await;
        // What the world checks at its end is checked there.
        world.db_url = url.clone();
        let mut clients = world.clients(0).await;
        clients.create_account("a", |_| {}).await;
        let held = lease(&clients.acquire(|_| {}).await.unwrap());
        let redeemed = clients.redeem(&held, &world.code("of a schema"), |_| {}).await.unwrap();
        assert_eq!(redeemed.redemption.unwrap().state(), RedemptionState::Succeeded);
        let released = clients.release(&held).await.unwrap();
        assert_eq!(released.status(), AccountStatus::Processing);
        // By hand, through the other's search_path, while it serves.
        let through = if number == 1 { &two.other } else { &two.one };
        let mut db = connect(through).await;
        let events = count(&mut db, &format!("{schema}.account_events")).await;
        run(&mut db, &format!("UPDATE {schema}.accounts SET login_status = 'INACTIVE'")).await;
        assert_eq!(count(&mut db, &format!("{schema}.account_events")).await, events + 1);
        assert_eq!(count(&mut db, &format!("{schema}.redemptions")).await, 1);
        drop(world);
    }
    let mut db = connect(&two.database.url).await;
    assert_eq!(count(&mut db, "one.accounts").await, 1);
    assert_eq!(count(&mut db, "\"Two's own\".accounts").await, 1);
    drop(db);
    two.database.drop_database().await;
}

#[tokio::test]
async fn an_installation_is_made_in_the_first_schema_of_the_path_though_another_is_further_on() {
    let database = empty_database().await;
    migrate(&database.url).await;
    let mut db = connect(&database.url).await;
    db.execute("CREATE SCHEMA hf").await.unwrap();
    migrate(&with_path(&database.url, "hf%2Cpublic")).await;
    let made = "SELECT count(*) FROM pg_class WHERE relname = 'accounts' AND relkind = 'r'";
    assert_eq!(sqlx::query_scalar::<_, i64>(made).fetch_one(&mut db).await.unwrap(), 2);
    let nowhere = Store::open(&with_path(&database.url, "nowhere").into(), 4).unwrap();
    let error = nowhere.migrate().await.unwrap_err().to_string();
    assert!(error.contains("search_path") && error.contains("names no schema"), "{error}");
    drop(db);
    database.drop_database().await;
}

#[tokio::test]
async fn installations_in_schemas_of_their_own_are_made_and_served_by_the_setting_alone() {
    let database = empty_database().await;
    // One that is there already in the schema that everybody finds, and is not touched.
    migrate(&database.url).await;
    let mut db = connect(&database.url).await;
    for name in ["cards_eu", "Cards \"US\""] {
        let schema: SqlName = name.parse().unwrap();
        let settings = |args: &mut holdfast::config::ServeArgs| {
            args.database_url = Some(database.url.clone().into());
            args.database.database_schema = Some(schema.clone());
        };
        let mut world = World::with(settings, 1).await;
        let quoted = schema.quoted();
        world.db_url = with_path(&database.url, &quoted.replace('"', "%22").replace(' ', "%5C%20"));
        let mut clients = world.clients(0).await;
        clients.create_account("a", |_| {}).await;
        let held = lease(&clients.acquire(|_| {}).await.unwrap());
        let redeemed = clients.redeem(&held, &world.code(name), |_| {}).await.unwrap();
        assert_eq!(redeemed.redemption.unwrap().state(), RedemptionState::Succeeded);
        clients.release(&held).await.unwrap();
        // By hand, while it serves, from a psql that finds the first installation.
        let events = count(&mut db, &format!("{quoted}.account_events")).await;
        run(&mut db, &format!("UPDATE {quoted}.accounts SET login_status = 'INACTIVE'")).await;
        assert_eq!(count(&mut db, &format!("{quoted}.account_events")).await, events + 1);
        assert_eq!(count(&mut db, "public.account_events").await, 0);
        assert_eq!(count(&mut db, "public.accounts").await, 0);
        let again = Address { schema: Some(schema), ..database.url.as_str().into() };
        let store = Store::open(&again, 2).unwrap();
        store.check_schema().await.unwrap();
        store.close().await;
        drop(world);
    }
    drop(db);
    database.drop_database().await;
}
