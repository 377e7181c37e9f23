//! `DeletePool`: a pool that never had an account goes, with all that servers have of it; others stay, with their history.

use std::time::Duration;

use holdfast::rpc::pb;
use tonic::{Code, Status};

use crate::support::{
    program,
    wait::eventually,
    world::{Clients, POOL, World, check_names, lease, metadata, reason},
};

const LIMIT: Duration = Duration::from_secs(60);
/// How many pools are deleted.
const POOLS: usize = 10;

async fn delete(clients: &mut Clients, pool_id: &str) -> Result<(), Status> {
    let request = pb::DeletePoolRequest { pool_id: pool_id.to_owned() };
    clients.pools.delete_pool(request).await.map(drop)
}

async fn create(clients: &mut Clients, pool_id: &str, currency: &str) -> Result<(), Status> {
    let pool = pb::Pool {
        pool_id: pool_id.to_owned(),
        currency_code: currency.to_owned(),
        ..Default::default()
    };
    clients.pools.create_pool(pb::CreatePoolRequest { pool: Some(pool) }).await.map(drop)
}

async fn create_plan(clients: &mut Clients, pool_id: &str, currency: &str) -> Result<(), Status> {
    let target = pb::Money { amount_minor: 500, currency_code: currency.to_owned() };
    let plan = pb::Plan {
        pool_id: pool_id.to_owned(),
        plan_id: "plan".to_owned(),
        target: Some(target),
        ..Default::default()
    };
    clients.pools.create_plan(pb::CreatePlanRequest { plan: Some(plan) }).await.map(drop)
}

async fn create_account(
    clients: &mut Clients,
    pool_id: &str,
    account_id: &str,
) -> Result<pb::Account, Status> {
    let account = pb::Account {
        pool_id: pool_id.to_owned(),
        account_id: account_id.to_owned(),
        ..Default::default()
    };
    let request = pb::CreateAccountRequest { account: Some(account) };
    Ok(clients.accounts.create_account(request).await?.into_inner().account.unwrap())
}

/// How many series of a server's metrics name one of the pools.
async fn series(world: &World, server: usize) -> usize {
    let url = format!("http://{}/metrics", world.server(server).admin_addr());
    let metrics = reqwest::get(&url).await.unwrap().text().await.unwrap();
    metrics.lines().filter(|line| line.contains("pool_id=\"gone-")).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_deleted_pool_is_left_on_any_server_and_its_id_is_that_of_a_new_one() {
    let idle = Duration::from_secs(10);
    let world = World::with(|args| args.limits.idle_pool_timeout = idle, 2).await;
    let (mut one, mut two) = (world.clients(0).await, world.clients(1).await);
    let names: Vec<_> = (0..POOLS).map(|n| format!("gone-{n}")).collect();
    for name in &names {
        create(&mut one, name, "EUR").await.unwrap();
        create_plan(&mut one, name, "EUR").await.unwrap();
    }
    let tasks = world.tasks();
    // Each server has a task and series of each pool.
    let mut nobody_waits = async || {
        for name in &names {
            for clients in [&mut one, &mut two] {
                let acquired = clients.acquire(|request| request.pool_id.clone_from(name)).await;
                assert_eq!(reason(&acquired.unwrap_err()), "NO_ACCOUNT_AVAILABLE");
            }
        }
    };
    eventually(LIMIT, "both servers have series of the pools", async || {
        nobody_waits().await;
        (series(&world, 0).await > 0 && series(&world, 1).await > 0).then_some(())
    })
    .await;

    for name in &names {
        delete(&mut one, name).await.unwrap();
        assert_eq!(reason(&delete(&mut one, name).await.unwrap_err()), "POOL_NOT_FOUND");
    }
    eventually(LIMIT, "nothing is left of the pools", async || {
        let left = series(&world, 0).await + series(&world, 1).await;
        (left == 0 && world.tasks() < tasks + POOLS / 2).then_some(())
    })
    .await;
    let name = &names[0];
    for clients in [&mut one, &mut two] {
        let get = pb::GetPoolRequest { pool_id: name.clone() };
        let error = clients.pools.get_pool(get).await.unwrap_err();
        assert_eq!(reason(&error), "POOL_NOT_FOUND");
    }

    // Another pool of the same name, whose currency is another.
    create(&mut one, name, "USD").await.unwrap();
    create_account(&mut one, name, "a").await.unwrap();
    for clients in [&mut one, &mut two] {
        let plans = pb::ListPlansRequest { pool_id: name.clone(), ..Default::default() };
        assert_eq!(clients.pools.list_plans(plans).await.unwrap().into_inner().plans, []);
        let acquired = clients.acquire(|request| request.pool_id.clone_from(name)).await.unwrap();
        let balance = acquired.account.as_ref().unwrap().balance.clone().unwrap();
        assert_eq!(balance.currency_code, "USD");
        clients.release(&lease(&acquired)).await.unwrap();
    }
    let events = pb::ListAuditEventsRequest { pool_id: name.clone(), ..Default::default() };
    let mut events = one.access.list_audit_events(events).await.unwrap().into_inner().events;
    events.reverse();
    let seen: Vec<_> = events.iter().map(|event| &*event.action).collect();
    assert_eq!(seen, ["CreatePool", "CreatePlan", "DeletePool", "CreatePool", "CreateAccount"]);
    assert!(events[2].before.contains("\"currency_code\": \"EUR\"") && events[2].after.is_empty());
}

#[tokio::test]
async fn a_pool_that_has_or_had_an_account_stays_with_its_history() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(2).await;
    let held = lease(&clients.acquire(|_| {}).await.unwrap());
    clients.redeem(&held, &world.code("card"), |_| {}).await.unwrap();
    let error = delete(&mut clients, POOL).await.unwrap_err();
    assert_eq!((error.code(), &*reason(&error)), (Code::FailedPrecondition, "POOL_IN_USE"));
    let counts = ["pool_id", "accounts", "redemptions"].map(|key| metadata(&error, key));
    assert_eq!(counts, [POOL, "2", "1"]);
    clients.release(&held).await.unwrap();

    // An account that was deleted by hand leaves its history.
    create(&mut clients, "emptied", "EUR").await.unwrap();
    create_account(&mut clients, "emptied", "a").await.unwrap();
    let mut db = world.sql().await;
    let gone = "DELETE FROM accounts WHERE pool_id = 'emptied'";
    sqlx::query(gone).execute(&mut db).await.unwrap();
    let error = delete(&mut clients, "emptied").await.unwrap_err();
    assert_eq!((&*reason(&error), &*metadata(&error, "accounts")), ("POOL_IN_USE", "0"));

    let finished = program::run(&world, &["pool", "delete", POOL]).await;
    finished.says(1, &["POOL_IN_USE", "holdfast pool drain"]);
    create(&mut clients, "empty", "EUR").await.unwrap();
    program::run(&world, &["pool", "delete", "empty"]).await.says(0, &["pool empty is deleted"]);
    let wrong = delete(&mut clients, "no pool").await.unwrap_err();
    assert_eq!(wrong.code(), Code::InvalidArgument);
}

/// A server that has read the pool's settings just before it was deleted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_made_in_a_pool_as_it_is_deleted_is_refused_by_its_name() {
    let world = World::with(|_| {}, 2).await;
    let (mut one, mut two) = (world.clients(0).await, world.clients(1).await);
    for round in 0..5 {
        let name = format!("gone-{round}");
        create(&mut one, &name, "EUR").await.unwrap();
        let plans = pb::ListPlansRequest { pool_id: name.clone(), ..Default::default() };
        two.pools.list_plans(plans).await.unwrap();
        delete(&mut one, &name).await.unwrap();
        let error = create_account(&mut two, &name, "a").await.unwrap_err();
        check_names(&error, Code::NotFound, "POOL_NOT_FOUND", "pool", &name);

        create(&mut one, &name, "EUR").await.unwrap();
        let plans = pb::ListPlansRequest { pool_id: name.clone(), ..Default::default() };
        two.pools.list_plans(plans).await.unwrap();
        delete(&mut one, &name).await.unwrap();
        let error = create_plan(&mut two, &name, "EUR").await.unwrap_err();
        check_names(&error, Code::NotFound, "POOL_NOT_FOUND", "pool", &name);
    }
}

/// Whichever comes first, there is no account without its pool.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_is_deleted_or_gets_its_first_account_and_not_both() {
    let world = World::with(|_| {}, 2).await;
    let (mut one, mut two) = (world.clients(0).await, world.clients(1).await);
    for round in 0..20 {
        let name = format!("raced-{round}");
        create(&mut one, &name, "EUR").await.unwrap();
        let (deleted, created) =
            tokio::join!(delete(&mut one, &name), create_account(&mut two, &name, "a"));
        match (&deleted, &created) {
            (Ok(()), Err(error)) => assert_eq!(reason(error), "POOL_NOT_FOUND"),
            (Err(error), Ok(_)) => assert_eq!(reason(error), "POOL_IN_USE"),
            _ => panic!("{deleted:?} {created:?}"),
        }
    }
}
