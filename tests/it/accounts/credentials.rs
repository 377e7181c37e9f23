//! Credentials of accounts: kept for the provider, and told to nobody. That none is stored or logged in clear, the
//! teardown of every test checks.

use std::{collections::HashMap, fmt::Debug, time::Duration};

use holdfast::{
    domain::id::{AccountId, PoolId},
    rpc::pb,
    secret::SecretKeys,
    service::account_values::{NoValues, account_values},
};
use prost::Message;
use sqlx::{AssertSqlSafe, PgConnection};
use tonic::{Code, Status};

use crate::support::{
    batch::rich,
    checks::{CREDENTIAL_MARK, Scene, broken_promises},
    program,
    wait::eventually,
    world::{Clients, POOL, World, bad_fields, lease, reason},
};

const LIMIT: Duration = Duration::from_secs(10);

/// Credentials of these names, with values of their own.
fn credentials(names: &[&str], suffix: &str) -> HashMap<String, String> {
    names.iter().map(|name| ((*name).to_owned(), value(name, suffix))).collect()
}

fn value(name: &str, suffix: &str) -> String {
    format!("{CREDENTIAL_MARK}={name}, {suffix}")
}

fn account(account_id: &str, credentials: HashMap<String, String>) -> pb::Account {
    pb::Account {
        pool_id: POOL.into(),
        account_id: account_id.into(),
        credentials,
        ..Default::default()
    }
}

async fn create(clients: &mut Clients, account: pb::Account) -> Result<pb::Account, Status> {
    let request = pb::CreateAccountRequest { account: Some(account) };
    Ok(clients.accounts.create_account(request).await?.into_inner().account.unwrap())
}

async fn import(clients: &mut Clients, accounts: Vec<pb::Account>) -> pb::ImportAccountsResponse {
    let message = |account| pb::ImportAccountsRequest { account: Some(account) };
    let stream = tokio_stream::iter(accounts.into_iter().map(message).collect::<Vec<_>>());
    clients.accounts.import_accounts(stream).await.unwrap().into_inner()
}

async fn update(
    clients: &mut Clients,
    account: pb::Account,
    paths: &[&str],
) -> Result<pb::Account, Status> {
    let paths = paths.iter().map(|path| (*path).to_owned()).collect();
    let update_mask = Some(prost_types::FieldMask { paths });
    let request = pb::UpdateAccountRequest { account: Some(account), update_mask };
    Ok(clients.accounts.update_account(request).await?.into_inner().account.unwrap())
}

/// What a request to the provider can have of an account's credentials.
async fn stored(world: &World, account_id: &str) -> HashMap<String, String> {
    read(world, &world.secret(), account_id).await.unwrap()
}

async fn read(
    world: &World,
    secret: &SecretKeys,
    account_id: &str,
) -> Result<HashMap<String, String>, NoValues> {
    let (pool_id, account_id) =
        (PoolId::parse(POOL).unwrap(), AccountId::parse(account_id).unwrap());
    let values = account_values(&world.store(), secret, &pool_id, &account_id).await?;
    Ok(values.credentials.clone().into_iter().collect())
}

/// How many rows of credentials there are.
async fn rows(db: &mut PgConnection) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM account_credentials").fetch_one(db).await.unwrap()
}

async fn run_sql(db: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(db).await.unwrap();
}

/// The message has no credential. Its `Debug` would leave them out.
fn tells_none(message: &(impl Message + Debug)) {
    let bytes = message.encode_to_vec();
    let mark = CREDENTIAL_MARK.as_bytes();
    assert!(!bytes.windows(mark.len()).any(|part| part == mark), "{message:?}");
}

fn error_tells_none(error: &Status) {
    let details = String::from_utf8_lossy(error.details());
    for text in [&format!("{error:?}"), &*details] {
        assert!(!text.contains(CREDENTIAL_MARK), "{text}");
    }
}

#[tokio::test]
async fn credentials_are_set_by_create_import_and_update_and_replaced_as_a_whole() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    let pair = || credentials(&["login", "pin"], "");
    create(&mut clients, account("created", pair())).await.unwrap();
    assert_eq!(stored(&world, "created").await, pair());

    let imported = vec![account("a", credentials(&["pin"], "a")), account("b", HashMap::new())];
    assert_eq!(import(&mut clients, imported).await.created, 2);
    assert_eq!(stored(&world, "a").await, credentials(&["pin"], "a"));
    assert!(stored(&world, "b").await.is_empty());
    let again = vec![account("a", credentials(&["pin"], "again"))];
    assert_eq!(import(&mut clients, again).await.failed, 1);
    assert_eq!(stored(&world, "a").await, credentials(&["pin"], "a"));

    let other = || credentials(&["Other.1"], "");
    let version = clients.events("created").await.len();
    update(&mut clients, account("created", other()), &["credentials"]).await.unwrap();
    assert_eq!(stored(&world, "created").await, other());
    let events = clients.events("created").await;
    assert_eq!((events.len(), &*events[0].reason), (version + 1, "updated"));
    // Set without a mask, not named by one, and named without any.
    update(&mut clients, account("b", other()), &[]).await.unwrap();
    assert_eq!(stored(&world, "b").await, other());
    update(&mut clients, account("created", pair()), &["labels"]).await.unwrap();
    update(&mut clients, account("created", HashMap::new()), &[]).await.unwrap();
    assert_eq!(stored(&world, "created").await, other());
    update(&mut clients, account("created", HashMap::new()), &["credentials"]).await.unwrap();
    assert!(stored(&world, "created").await.is_empty());
    assert_eq!(rows(&mut world.sql().await).await, 2);
}

#[tokio::test]
async fn credentials_are_in_no_answer_error_or_metric() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_plan("plan", 1000).await;
    let full = |id: &str| account(id, credentials(&["login", "pin"], ""));
    tells_none(&create(&mut clients, full("a")).await.unwrap());
    error_tells_none(&create(&mut clients, full("a")).await.unwrap_err());
    tells_none(&import(&mut clients, vec![full("a"), full("b"), full("c\u{7f}")]).await);
    tells_none(&update(&mut clients, full("a"), &["credentials"]).await.unwrap());
    let planned = pb::Account { plan_id: "none".into(), ..full("a") };
    let error = update(&mut clients, planned, &["credentials", "plan_id"]).await.unwrap_err();
    error_tells_none(&error);
    error_tells_none(&update(&mut clients, full("none"), &["credentials"]).await.unwrap_err());
    error_tells_none(&update(&mut clients, full("a"), &["secrets"]).await.unwrap_err());

    tells_none(&clients.account("a").await);
    for event in clients.events("a").await {
        tells_none(&event);
    }
    let list = pb::ListAccountsRequest { pool_id: POOL.into(), ..Default::default() };
    tells_none(&clients.accounts.list_accounts(list).await.unwrap().into_inner());
    let explain = pb::ExplainAcquireRequest { pool_id: POOL.into(), ..Default::default() };
    let explained = clients.redemptions.explain_acquire(explain).await.unwrap().into_inner();
    assert_eq!(explained.considered_accounts.len(), 2);
    tells_none(&explained);
    let acquired = clients.acquire(|_| {}).await.unwrap();
    tells_none(&acquired);
    let held = lease(&acquired);
    tells_none(&clients.redeem(&held, &world.code("card"), |_| {}).await.unwrap());
    tells_none(&clients.release(&held).await.unwrap());
    let metrics = format!("http://{}/metrics", world.server(0).admin_addr());
    let metrics = reqwest::get(&metrics).await.unwrap().text().await.unwrap();
    assert!(metrics.contains("holdfast_") && !metrics.contains(CREDENTIAL_MARK));
}

#[tokio::test]
async fn bad_credentials_are_all_named_at_once_and_not_repeated() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    let mut bad = credentials(&["good", CREDENTIAL_MARK], "");
    bad.insert(format!("{CREDENTIAL_MARK} as a name"), "v".into());
    bad.insert("empty".into(), String::new());
    bad.insert("line".into(), format!("{CREDENTIAL_MARK}\nx"));
    bad.insert("long".into(), CREDENTIAL_MARK.repeat(4096));
    bad.remove(CREDENTIAL_MARK);
    let named = ["", "[empty]", "[line]", "[long]"].map(|it| format!("account.credentials{it}"));
    let too_many = (0..33).map(|n| (format!("c{n}"), CREDENTIAL_MARK.to_owned())).collect();
    for (given, fields) in [(bad, &named[..]), (too_many, &named[..1])] {
        let error = create(&mut clients, account("a", given.clone())).await.unwrap_err();
        assert_eq!(bad_fields(&error), fields);
        error_tells_none(&error);
        let reply = import(&mut clients, vec![account("a", given.clone())]).await;
        tells_none(&reply);
        assert_eq!(bad_fields(&rich(reply.failures[0].error.as_ref().unwrap())), fields);
        // Also where the mask leaves them out.
        let error = update(&mut clients, account("a", given), &["labels"]).await.unwrap_err();
        assert_eq!(bad_fields(&error), fields);
        error_tells_none(&error);
    }
    assert_eq!(rows(&mut world.sql().await).await, 0);
}

#[tokio::test]
async fn stored_credentials_are_bound_to_their_account_and_key() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_pool("pool2").await;
    create(&mut clients, account("a", credentials(&["pin"], ""))).await.unwrap();
    create(&mut clients, account("b", HashMap::new())).await.unwrap();
    let mut db = world.sql().await;
    create(&mut clients, pb::Account { pool_id: "pool2".into(), ..account("a", HashMap::new()) })
        .await
        .unwrap();
    let copy = "INSERT INTO account_credentials
                SELECT w.pool_id, w.account_id, credentials
                FROM account_credentials, (VALUES ('pool', 'b'), ('pool2', 'a')) w (pool_id, account_id)";
    run_sql(&mut db, copy).await;
    let secret = world.secret();
    let error = read(&world, &secret, "b").await.unwrap_err();
    assert!(matches!(error, NoValues::Undecryptable), "{error}");
    let (pool_id, account_id) = (PoolId::parse("pool2").unwrap(), AccountId::parse("a").unwrap());
    let error = account_values(&world.store(), &secret, &pool_id, &account_id).await.err().unwrap();
    assert!(matches!(error, NoValues::Undecryptable), "{error}");
    let error = read(&world, &SecretKeys::ephemeral(), "a").await.unwrap_err();
    assert!(matches!(error, NoValues::Undecryptable), "{error}");
    let error = read(&world, &secret, "none").await.unwrap_err();
    assert!(matches!(error, NoValues::NoAccount), "{error}");
    assert_eq!(stored(&world, "a").await, credentials(&["pin"], ""));
}

#[tokio::test]
async fn what_a_request_can_have_of_an_account_is_read_as_it_is_now() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    let labels = HashMap::from([("tier".to_owned(), "gold".to_owned())]);
    let new = pb::Account { country_code: "DE".into(), labels, ..account("a", HashMap::new()) };
    create(&mut clients, new).await.unwrap();
    let (pool_id, account_id) = (PoolId::parse(POOL).unwrap(), AccountId::parse("a").unwrap());
    let store = world.store();
    let values = account_values(&store, &world.secret(), &pool_id, &account_id).await.unwrap();
    assert_eq!((values.country.as_deref(), &*values.labels["tier"]), (Some("DE"), "gold"));
    assert!(values.credentials.is_empty());
}

/// Otherwise the account could be used with the old ones, for ever if the server ended in between.
#[tokio::test]
async fn credentials_are_changed_before_the_account_is_let_in_again() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    let out = pb::Account {
        login_status: pb::LoginStatus::Invalid.into(),
        ..account("a", credentials(&["pin"], "old"))
    };
    create(&mut clients, out).await.unwrap();
    // A person holds the row, so that it cannot be changed yet.
    let mut person = world.sql().await;
    run_sql(&mut person, "BEGIN; SELECT FROM accounts FOR UPDATE").await;
    let mut caller = clients.clone();
    let call = tokio::spawn(async move {
        let account = pb::Account {
            login_status: pb::LoginStatus::Active.into(),
            ..account("a", credentials(&["pin"], "new"))
        };
        update(&mut caller, account, &[]).await
    });
    eventually(LIMIT, "the credentials are changed, or the call has its answer", async || {
        let is_new = stored(&world, "a").await == credentials(&["pin"], "new");
        (is_new || call.is_finished()).then_some(())
    })
    .await;
    assert_eq!(clients.account("a").await.login_status(), pb::LoginStatus::Invalid);
    assert_eq!(stored(&world, "a").await, credentials(&["pin"], "new"));
    run_sql(&mut person, "ROLLBACK").await;
    assert_eq!(call.await.unwrap().unwrap().login_status(), pb::LoginStatus::Active);
}

#[tokio::test]
async fn a_refused_update_leaves_the_credentials_as_they_were() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_plan("plan", 1000).await;
    let old = || credentials(&["pin"], "old");
    create(&mut clients, account("a", old())).await.unwrap();
    let with_plan = |plan_id: &str| pb::Account {
        plan_id: plan_id.into(),
        ..account("a", credentials(&["pin"], "new"))
    };
    let error = update(&mut clients, with_plan("none"), &[]).await.unwrap_err();
    assert_eq!((error.code(), &*reason(&error)), (Code::NotFound, "PLAN_NOT_FOUND"));
    assert_eq!(stored(&world, "a").await, old());
    let held = lease(&clients.acquire(|_| {}).await.unwrap());
    let error = update(&mut clients, with_plan("plan"), &[]).await.unwrap_err();
    assert_eq!(reason(&error), "ACCOUNT_LOCKED");
    assert_eq!(stored(&world, "a").await, old());
    // Credentials alone may change under a lease: a login that changed at the provider is needed for look-ups.
    update(&mut clients, with_plan(""), &[]).await.unwrap();
    assert_eq!(stored(&world, "a").await, credentials(&["pin"], "new"));
    clients.release(&held).await.unwrap();
    let error = update(&mut clients, account("b", old()), &[]).await.unwrap_err();
    assert_eq!(reason(&error), "ACCOUNT_NOT_FOUND");
    assert_eq!(rows(&mut world.sql().await).await, 1);
}

#[tokio::test]
async fn credentials_go_with_an_account_that_is_deleted_by_hand() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    for id in ["a", "b"] {
        create(&mut clients, account(id, credentials(&["pin"], id))).await.unwrap();
    }
    let mut db = world.sql().await;
    run_sql(&mut db, "DELETE FROM accounts WHERE account_id = 'a'").await;
    assert_eq!(rows(&mut db).await, 1);
    assert_eq!(stored(&world, "b").await, credentials(&["pin"], "b"));
}

#[tokio::test]
async fn account_files_and_update_set_credentials_and_print_none() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    let folder = tempfile::tempdir().unwrap();
    let rows = [
        format!("a,\"{}\",0012", value("login", "a")),
        "b,,".to_owned(),
        format!("c,\"{} \",{CREDENTIAL_MARK}\u{1b}", value("login", "a")),
        format!("d,={CREDENTIAL_MARK},"),
    ];
    let file = folder.path().join("accounts.csv");
    let file =
        program::write_lines(&file, "account_id,credential.login,credential.pin", rows.clone());
    let file = file.to_str().unwrap();
    let done = program::run(&world, &["account", "import", file, "--pool", POOL]).await;
    done.says(
        1,
        &[
            "2 created, 0 not created, 2 bad rows",
            "line 4: credential.pin has a control character",
            "; credential.login begins or ends with a space",
            "line 5: credential.login is a formula",
        ],
    );
    assert!(!format!("{done:?}").contains(CREDENTIAL_MARK), "{done:?}");
    let pin = ("pin".to_owned(), "0012".to_owned());
    let both = [("login".to_owned(), value("login", "a")), pin.clone()];
    assert_eq!(stored(&world, "a").await, HashMap::from(both));
    assert!(stored(&world, "b").await.is_empty());

    let file = folder.path().join("credentials");
    let update = |more: &[&str]| {
        let args = [&["account", "update", "b", "--pool", POOL], more].concat();
        args.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let path = file.to_str().unwrap().to_owned();
    let set = update(&["--credentials-file", &path]);
    let run = async |args: &[String]| {
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let done = program::run(&world, &args).await;
        assert!(!format!("{done:?}").contains(CREDENTIAL_MARK), "{done:?}");
        done
    };
    std::fs::write(&file, format!("{CREDENTIAL_MARK}\nlogin={CREDENTIAL_MARK}\u{1b}\n")).unwrap();
    run(&set).await.says(1, &["line 1 must be written as NAME=VALUE", "the credential login must"]);
    assert!(stored(&world, "b").await.is_empty());
    let padded = format!(" {} ", value("login", "a"));
    std::fs::write(&file, format!("login={padded}\npin=0012\n")).unwrap();
    let done = run(&set).await;
    done.says(0, &[]);
    assert!(done.stdout.contains('b'), "{done:?}");
    let both = [("login".to_owned(), padded), pin];
    assert_eq!(stored(&world, "b").await, HashMap::from(both));
    run(&update(&["--remove-credentials"])).await.says(0, &[]);
    assert!(stored(&world, "b").await.is_empty());
    run(&update(&[])).await.says(2, &["--credentials-file"]);
    assert_eq!(clients.events("b").await.len(), 3);
}

/// The teardown's check finds them in a column of text, and in one of bytes.
#[tokio::test]
async fn credentials_in_clear_are_noticed() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    create(&mut clients, account("a", HashMap::new())).await.unwrap();
    let mut db = world.sql().await;
    let scene = Scene {
        url: &world.db_url,
        ledger: &world.ledger,
        others: &[],
        code_prefix: "no code",
        journal: clients.journal(),
        logs: &[],
    };
    assert!(broken_promises(&scene).await.is_empty());
    // Made in the database: a statement that has it would be in the log.
    let (begin, end) = CREDENTIAL_MARK.split_at(2);
    let mark = format!("'{begin}' || '{end}'");
    let labels = format!("UPDATE accounts SET labels = jsonb_build_object('k', {mark})");
    run_sql(&mut db, &labels).await;
    let bytes = format!("SELECT pool_id, account_id, convert_to({mark}, 'UTF8') FROM accounts");
    run_sql(&mut db, &format!("INSERT INTO account_credentials {bytes}")).await;
    let mut broken = broken_promises(&scene).await;
    broken.sort();
    let found = |table| format!("credentials stand in clear in {table}, in 1 rows");
    assert_eq!(broken, ["account_credentials", "accounts"].map(found));
    run_sql(&mut db, "DELETE FROM account_credentials; UPDATE accounts SET labels = '{}'").await;
}
