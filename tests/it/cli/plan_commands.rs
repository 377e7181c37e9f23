//! `holdfast plan`, `pool drain`, `account explain` and their like, as an operator runs them.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use holdfast::rpc::pb;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::world::{POOL, World, lease};

fn command(world: &World, line: &str) -> Command {
    let server = format!("http://{}", world.server(0).addr());
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    command.args(line.split(' ')).args(["--server", &server]).stdin(Stdio::null());
    command
}

fn run(world: &World, line: &str) -> Output {
    command(world, line).output().unwrap()
}

fn printed(done: &Output) -> String {
    String::from_utf8_lossy(&done.stderr).into_owned()
}

/// What a command that succeeds answers.
fn json(world: &World, line: &str) -> Value {
    let done = run(world, &format!("{line} --format json"));
    assert_eq!(done.status.code(), Some(0), "{line}: {}", printed(&done));
    serde_json::from_slice(&done.stdout).unwrap()
}

/// The error of a command that is refused.
fn refused(world: &World, line: &str) -> String {
    let done = run(world, line);
    assert_eq!(done.status.code(), Some(1), "{line}");
    assert!(done.stdout.is_empty());
    printed(&done)
}

#[tokio::test]
async fn a_plan_is_created_changed_field_by_field_shown_and_deleted() {
    let world = World::start().await;
    let created = json(
        &world,
        "plan create steady --pool pool --target 20000 --day-amounts 5000,5000,10000 \
         --day-tolerance 500 --day-interval 20h --redemption-interval 1m --fixed-amounts 2500,1000",
    );
    assert_eq!(created["day_amounts_minor"], json!([5000, 5000, 10000]));
    assert_eq!(created["days"], "5000 x 2, 10000");
    assert_eq!(
        [&created["day_tolerance_minor"], &created["fixed_amounts_minor"]],
        [&json!(500), &json!([1000, 2500])]
    );
    assert_eq!([&created["day_interval"], &created["redemption_interval"]], ["20h", "1m"]);

    let update = |flags: &str| json(&world, &format!("plan update steady --pool pool {flags}"));
    let changed = update("--target 30000 --amounts -9000");
    assert_eq!(
        [&changed["target_minor"], &changed["denominations"]],
        [&json!(30000), &json!("at most 9000")]
    );
    assert_eq!(changed["days"], created["days"], "what is not named is left alone");
    let cleared = update("--no-days --any-amount --day-tolerance 0 --redemption-interval 0s");
    assert_eq!(
        [&cleared["day_amounts_minor"], &cleared["denominations"], &cleared["target_minor"]],
        [&json!([]), &json!("any amount"), &json!(30000)]
    );
    assert_eq!(
        [&cleared["day_tolerance_minor"], &cleared["redemption_interval"]],
        [&json!(0), &json!("0s")]
    );
    assert_eq!(cleared["day_interval"], "20h");
    assert_eq!(json(&world, "plan show steady --pool pool"), cleared);
    assert_eq!(json(&world, "plan list --pool pool"), json!([cleared]));

    let table = run(&world, "plan list --pool pool --format table");
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains(" any amount ") && !table.contains("fixed_amounts_minor"), "{table}");

    let mut clients = world.clients(0).await;
    clients.create_account("a", |account| account.plan_id = "steady".to_owned()).await;
    let why = refused(&world, "plan delete steady --pool pool");
    assert!(why.contains("PLAN_IN_USE") && why.contains("account_id: a"), "{why}");
    let moved =
        pb::Account { pool_id: POOL.to_owned(), account_id: "a".to_owned(), ..Default::default() };
    let update_mask = Some(prost_types::FieldMask { paths: vec!["plan_id".to_owned()] });
    let request = pb::UpdateAccountRequest { account: Some(moved), update_mask };
    clients.accounts.update_account(request).await.unwrap();
    let deleted = run(&world, "plan delete steady --pool pool");
    assert_eq!(deleted.status.code(), Some(0), "{}", printed(&deleted));
    assert_eq!(json(&world, "plan list --pool pool"), json!([]));
}

#[tokio::test]
async fn a_plan_that_does_not_fit_together_is_refused_with_every_rule_that_it_breaks() {
    let world = World::start().await;
    let why = refused(
        &world,
        "plan create bad --pool pool --target 100 --day-amounts 80,80 --fixed-amounts 10,10",
    );
    assert!(why.contains("field plan.day_amounts: must add up to at most the target"), "{why}");
    assert!(why.contains("field plan.denominations: must each be there once"), "{why}");
    let why = refused(&world, "plan create bad --pool pool --target 1000 --multiples-of 300");
    assert!(why.contains("must be able to add up to the target"), "{why}");
}

#[tokio::test]
async fn explain_counts_the_causes_and_tells_why_each_account_is_passed_over() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    json(&world, "plan create steady --pool pool --target 5000 --multiples-of 500");
    for (account, balance_minor) in [("full", 4000), ("empty", 0), ("half", 2500), ("odd", 100)] {
        clients
            .create_account(account, |it| {
                it.plan_id = "steady".to_owned();
                it.balance =
                    Some(pb::Money { amount_minor: balance_minor, currency_code: "EUR".into() });
            })
            .await;
    }
    for account in ["asleep", "going"] {
        clients.create_account(account, |_| {}).await;
    }
    assert_eq!(json(&world, "account pause asleep --pool pool")["paused"], true);
    assert_eq!(json(&world, "account drain going --pool pool")["draining"], true);

    let explained = json(&world, "account explain --pool pool --amount 1500");
    assert_eq!(
        (&explained["pool_closed"], &explained["currency_code"]),
        (&false.into(), &"EUR".into())
    );
    let told: Vec<[&str; 2]> = explained["accounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| [row["account_id"].as_str().unwrap(), row["verdict"].as_str().unwrap()])
        .collect();
    assert_eq!(
        told,
        [
            ["half", "FITS"],
            ["empty", "FITS"],
            ["going", "DRAINING"],
            ["asleep", "PAUSED"],
            ["odd", "REMAINDER"],
            ["full", "TOO_FULL"],
        ]
    );
    let full = &explained["accounts"][5];
    assert_eq!(
        (&full["why"], &full["headroom_minor"]),
        (&"its plan wants 1000 more".into(), &json!(1000))
    );
    let mut counts: Vec<_> = explained["verdicts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["verdict"].as_str().unwrap(), row["accounts"].as_i64().unwrap()))
        .collect();
    counts.sort_unstable();
    assert_eq!(
        counts,
        [("DRAINING", 1), ("FITS", 2), ("PAUSED", 1), ("REMAINDER", 1), ("TOO_FULL", 1)]
    );

    let one = json(&world, "account explain --pool pool --amount 1500 --account empty --limit 1");
    assert_eq!(one["accounts"].as_array().unwrap().len(), 1);
    assert_eq!(one["accounts"][0]["account_id"], "empty");
    let table = run(&world, "account explain --pool pool --amount 1500 --format table");
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.find(" meaning ").unwrap() < table.find(" why ").unwrap(), "{table}");

    assert!(json(&world, "account resume asleep --pool pool")["paused"].is_null());
    json(&world, "pool drain pool");
    let closed = run(&world, "account explain --pool pool --format json");
    assert!(
        printed(&closed).contains("pool pool is draining: nothing is picked"),
        "{}",
        printed(&closed)
    );
    let closed: Value = serde_json::from_slice(&closed.stdout).unwrap();
    assert_eq!(closed["pool_closed"], true);
    let why = refused(&world, "account explain --pool pool --plan none");
    assert!(why.contains("PLAN_NOT_FOUND"), "{why}");
}

#[tokio::test]
async fn an_account_shows_its_day_what_is_reserved_and_its_hold_which_a_person_lifts() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    json(&world, "plan create days --pool pool --target 3000 --day-amounts 1000,2000");
    clients.create_account("a", |account| account.plan_id = "days".to_owned()).await;
    let acquired = clients
        .acquire(|request| {
            let selector = request.selector.get_or_insert_default();
            selector.expected = Some(pb::Money { amount_minor: 1000, currency_code: "EUR".into() });
        })
        .await
        .unwrap();
    let show = || json(&world, "account show a --pool pool")["account"].clone();
    let held = show();
    assert_eq!(
        [&held["plan_day"], &held["day_credited_minor"], &held["reserved_minor"]],
        [&json!(1), &json!(0), &json!(1000)]
    );
    let held = lease(&acquired);
    let code = world.code("card");
    clients.redeem(&held, &code, |request| request.release_on_completion = true).await.unwrap();
    let after = show();
    assert_eq!(
        [&after["plan_day"], &after["day_credited_minor"], &after["reserved_minor"]],
        [&json!(2), &json!(0), &json!(null)]
    );
    assert!(after["available_time"].is_string(), "{after}");

    let mut sql = world.sql().await;
    sqlx::query(
        "UPDATE accounts SET hold_until = now() + interval '1 hour', hold_cause = 'THROTTLED',
             hold_count = 2, login_status = 'INVALID'",
    )
    .execute(&mut sql)
    .await
    .unwrap();
    let resting = show();
    assert_eq!([&resting["hold"], &resting["hold_count"]], [&json!("THROTTLED"), &json!(2)]);
    let list = json(&world, "account list --pool pool");
    assert_eq!(list[0]["hold_expire_time"], resting["hold_expire_time"]);
    let lifted = json(&world, "account lift-hold a --pool pool");
    assert_eq!([&lifted["hold"], &lifted["login_status"]], [&json!(null), &json!("INVALID")]);
    assert_eq!(json(&world, "account activate a --pool pool")["login_status"], "ACTIVE");
}

#[tokio::test]
async fn a_pools_share_and_holds_are_set_and_changed() {
    let world = World::start().await;
    let created =
        json(&world, "pool create other --currency EUR --hold-throttled 30s --hold-longest 2h");
    assert_eq!(
        [&created["hold_throttled"], &created["hold_longest"], &created["hold_login_invalid"]],
        ["30s", "2h", "1h"]
    );
    assert_eq!(created["holder_share_percent"], 50);
    let changed =
        json(&world, "pool update other --hold-login-invalid 3h --holder-share-percent 20");
    assert_eq!(
        [&changed["hold_throttled"], &changed["hold_login_invalid"]],
        ["30s", "3h"],
        "the other holds are left alone"
    );
    assert_eq!(changed["holder_share_percent"], 20);
}

/// A drain that waits, as far as its first word of one that is locked.
fn draining(world: &World) -> Child {
    let mut command = command(world, "pool drain pool --wait --format json");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "pool pool: 1 locked\n");
    child
}

#[tokio::test]
async fn a_drain_waits_for_the_last_lease_and_leaves_the_pool_draining_when_it_is_interrupted() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;
    let held = lease(&clients.acquire(|_| {}).await.unwrap());

    let mut interrupted = draining(&world);
    let id = Pid::from_raw(interrupted.id().try_into().unwrap()).unwrap();
    kill_process(id, Signal::INT).unwrap();
    let mut why = String::new();
    assert_eq!(interrupted.wait().unwrap().code(), Some(1));
    interrupted.stderr.unwrap().read_to_string(&mut why).unwrap();
    assert!(why.contains("goes on draining"), "{why}");
    let refusal = clients.acquire(|_| {}).await.unwrap_err();
    assert!(refusal.message().contains("drain"), "{refusal:?}");

    let waiting = draining(&world);
    clients.renew(&held, Duration::from_secs(30)).await.unwrap();
    clients.release(&held).await.unwrap();
    let done = waiting.wait_with_output().unwrap();
    assert_eq!(done.status.code(), Some(0));
    let pool: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(pool["draining"], true);
    assert_eq!(json(&world, "pool resume pool")["draining"], false);
    clients.acquire(|_| {}).await.unwrap();
}
