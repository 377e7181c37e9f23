//! Redemptions over the profiles of real APIs, through faults of the provider and a restart of it: no code is credited
//! twice, both sides know of the same credits, and what cannot be found out is left to a person.

use std::{
    collections::{HashMap, HashSet},
    fs,
    time::Duration,
};

use holdfast::{
    rpc::pb,
    simulator::{
        Api, Simulator, SimulatorArgs,
        faults::Faults,
        ledger::{self, Row, State},
    },
};
use sqlx::Row as _;

use super::{apply, give_secret};
use crate::support::{
    checks::{self, CREDENTIAL_MARK},
    wait::eventually,
    world::{Clients, World, lease, seconds},
};

/// As many accounts as cards: one whose redemption is a person's stays locked.
const CARDS: usize = 30;
const POOL: &str = "real";
const MINOR: i64 = 1000;

fn account_id(number: usize) -> String {
    format!("account-{number}")
}

fn password(number: usize) -> String {
    format!("{CREDENTIAL_MARK}-password-{number}")
}

/// A profile's file with another base, and times that a test can wait for.
pub(super) fn profile(file: &str, url: &str) -> String {
    let path = format!("{}/profiles/{file}.toml", env!("CARGO_MANIFEST_DIR"));
    let times = [
        ("base = ", format!("base = \"{url}\"")),
        ("timeout = ", "timeout = \"1s\"".to_owned()),
        ("visibility = ", "visibility = \"200ms\"".to_owned()),
        ("max_processing = ", "max_processing = \"4s\"".to_owned()),
        ("send_window = ", "send_window = \"3s\"".to_owned()),
    ];
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().map(|line| {
        let other = times.iter().find(|(start, _)| line.starts_with(start));
        other.map_or(line.to_owned(), |(_, other)| other.clone())
    });
    lines.collect::<Vec<_>>().join("\n")
}

async fn create_pool_and_accounts(clients: &mut Clients, provider_id: &str) {
    let pool = pb::Pool {
        pool_id: POOL.to_owned(),
        provider_id: provider_id.to_owned(),
        currency_code: "USD".to_owned(),
        ..Default::default()
    };
    clients.pools.create_pool(pb::CreatePoolRequest { pool: Some(pool) }).await.unwrap();
    for number in 0..CARDS {
        let credentials = [("username", account_id(number)), ("password", password(number))];
        let account = pb::Account {
            pool_id: POOL.to_owned(),
            account_id: account_id(number),
            credentials: credentials.map(|(name, value)| (name.to_owned(), value)).into(),
            ..Default::default()
        };
        let request = pb::CreateAccountRequest { account: Some(account) };
        clients.accounts.create_account(request).await.unwrap();
    }
}

/// Redeems a card into any account, trying again where nothing was begun.
async fn redeem(mut clients: Clients, code: String) {
    let acquired = clients
        .acquire(|request| {
            request.pool_id = POOL.to_owned();
            request.wait_timeout = seconds(60.0);
        })
        .await
        .unwrap();
    let lease = lease(&acquired);
    let redeemed = clients.redeem(&lease, &code, |request| {
        request.expected = Some(pb::Money { amount_minor: MINOR, currency_code: "USD".to_owned() });
        request.release_on_completion = true;
    });
    redeemed.await.unwrap();
}

/// Redeems all cards over an API, while it fails now and then, and answers with what the provider has and what is
/// recorded: by the provider's key of each.
async fn run(api: Api, file: &str) -> (Vec<Row>, Vec<Recorded>) {
    let world = World::start().await;
    let dir = tempfile::tempdir().unwrap();
    let logins: String =
        (0..CARDS).map(|number| format!("{},{}\n", account_id(number), password(number))).collect();
    let accounts = dir.path().join("accounts.csv");
    fs::write(&accounts, format!("username,password\n{logins}")).unwrap();
    let faults = Faults {
        apply_then_drop: 12.0,
        drop_before_apply: 12.0,
        error_after_apply: 12.0,
        slow_202: 12.0,
        garbage: 8.0,
        busy: 8.0,
        lookup_error: 15.0,
        processing_time: Duration::from_millis(500),
        ..Faults::default()
    };
    let args = SimulatorArgs {
        api,
        currency: "USD".to_owned(),
        api_key: Some("the-key".to_owned()),
        api_secret: Some("the-secret".to_owned()),
        accounts: Some(accounts),
        faults,
        ..SimulatorArgs::new(dir.path().join("ledger"))
    };
    let mut simulator = Simulator::start(&args).await.unwrap();
    let secrets = [
        ("api_key", "the-key"),
        ("access_token", "the-key"),
        ("api_secret", "the-secret"),
        ("webhook_key", "hook"),
        ("webhook_url", "https://holdfast.example/webhooks/x"),
    ];
    for (name, value) in secrets {
        give_secret(&world, file, name, value);
    }
    let mut clients = world.clients(0).await;
    let applied = apply(&mut clients, &profile(file, &simulator.url())).await.unwrap();
    create_pool_and_accounts(&mut clients, &applied.provider_id).await;

    let mut redeeming = tokio::task::JoinSet::new();
    for number in 0..CARDS {
        redeeming.spawn(redeem(clients.clone(), world.code(&format!("{file}-{number}"))));
        if number == CARDS / 2 {
            // In the middle of it the provider stops, and comes back with what it had on disk.
            let listen = simulator.addr();
            simulator.kill().await.unwrap();
            let again = SimulatorArgs { listen, ..args.clone() };
            simulator = eventually(Duration::from_secs(10), "the port is free again", async || {
                Simulator::start(&again).await.ok()
            })
            .await;
        }
    }
    while let Some(done) = redeeming.join_next().await {
        done.unwrap();
    }
    let mut db = world.sql().await;
    eventually(Duration::from_secs(40), "all is settled or a person's", async || {
        (checks::open_redemptions(&mut db).await == 0).then_some(())
    })
    .await;
    simulator.stop().await.unwrap();
    (ledger::read(&args.ledger).unwrap(), recorded(&mut db).await)
}

/// A redemption as it is recorded.
struct Recorded {
    key: String,
    task: Option<String>,
    state: String,
    account: String,
    amount: Option<i64>,
}

async fn recorded(db: &mut sqlx::PgConnection) -> Vec<Recorded> {
    let rows = sqlx::query("SELECT * FROM redemptions WHERE pool_id = 'real'").fetch_all(db).await;
    let read = |row: sqlx::postgres::PgRow| Recorded {
        key: row.get::<uuid::Uuid, _>("redemption_id").to_string(),
        task: row.get("provider_task"),
        state: row.get("state"),
        account: row.get("account_id"),
        amount: row.get("amount_minor"),
    };
    rows.unwrap().into_iter().map(read).collect()
}

/// Checks that both sides have the same credits, but for what a person is told to find out.
fn agree(rows: &[Row], recorded: &[Recorded], name: impl Fn(&Recorded) -> Option<String>) {
    let credits = rows.iter().filter(|row| row.state == State::Succeeded);
    let mut theirs = HashMap::new();
    let mut codes = HashSet::new();
    for row in credits {
        assert!(codes.insert(row.code_sha256.clone()), "a code was credited twice");
        let account = row.account_ref.clone().unwrap_or_default();
        theirs.insert(row.key.clone(), (account, row.amount_minor));
    }
    assert_eq!(recorded.len(), CARDS);
    let mut in_review = 0;
    for ours in recorded {
        let credited = name(ours).and_then(|name| theirs.remove(&name));
        match &*ours.state {
            "SUCCEEDED" => {
                let expected = Some((ours.account.clone(), ours.amount.unwrap()));
                assert_eq!(credited, expected, "{}", ours.key);
            }
            "FAILED" => assert_eq!(credited, None, "{}", ours.key),
            "NEEDS_REVIEW" => in_review += 1,
            other => panic!("{} is {other}", ours.key),
        }
    }
    // What is left there is of those whose name for it was never told.
    assert!(
        theirs.len() <= in_review,
        "{theirs:?} of which we know nothing, {in_review} in review"
    );
    assert!(recorded.iter().filter(|ours| ours.state == "SUCCEEDED").count() >= recorded.len() / 3);
}

#[tokio::test]
async fn tasks_are_polled_by_their_id_and_those_whose_id_was_lost_are_a_persons() {
    let (rows, recorded) = run(Api::Task, "task-api").await;
    agree(&rows, &recorded, |ours| ours.task.clone());
    // Nothing is deduplicated, and nothing was sent twice.
    let lost = recorded.iter().filter(|ours| ours.task.is_none() && ours.state == "NEEDS_REVIEW");
    assert!(lost.count() > 0, "the faults lost the id of some task");
}

#[tokio::test]
async fn an_idempotent_api_leaves_nothing_to_a_person() {
    let (rows, recorded) = run(Api::Square, "square").await;
    agree(&rows, &recorded, |ours| Some(ours.key.clone()));
    assert!(recorded.iter().all(|ours| ours.state != "NEEDS_REVIEW"));
}

#[tokio::test]
async fn an_api_that_refuses_duplicates_is_searched_and_leaves_nothing_to_a_person() {
    let (rows, recorded) = run(Api::Fiserv, "fiserv").await;
    agree(&rows, &recorded, |ours| Some(ours.key.replace('-', "")));
    assert!(recorded.iter().all(|ours| ours.state != "NEEDS_REVIEW"));
}
