//! Pools that nobody uses: a server lets go of what it has of them.

use std::time::Duration;

use holdfast::rpc::pb;

use tokio::task::JoinSet;

use crate::support::{
    wait::eventually,
    world::{Clients, World, lease},
};

const POOLS: usize = 40;

async fn use_pool(clients: &mut Clients, pool_id: &str) {
    let held = clients.acquire(|request| request.pool_id = pool_id.to_owned()).await.unwrap();
    clients.release(&lease(&held)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_nobody_uses_for_long_has_no_task_and_no_series_and_is_served_again() {
    let idle = Duration::from_millis(500);
    let world = World::with(|args| args.limits.idle_pool_timeout = idle, 1).await;
    let mut clients = world.clients(0).await;
    let names: Vec<_> = (0..POOLS).map(|n| format!("idle-{n}")).collect();
    for name in &names {
        clients.create_pool(name).await;
        let account =
            pb::Account { pool_id: name.clone(), account_id: "a".into(), ..Default::default() };
        let account = pb::CreateAccountRequest { account: Some(account) };
        clients.accounts.create_account(account).await.unwrap();
    }
    let url = format!("http://{}/metrics", world.server(0).admin_addr());
    let series = async || {
        let metrics = reqwest::get(&url).await.unwrap().text().await.unwrap();
        metrics
            .lines()
            .filter(|line| line.starts_with("holdfast_acquire_waiting{pool_id=\"idle-"))
            .count()
    };
    let tasks = world.tasks();
    for round in 0..2 {
        for name in &names {
            use_pool(&mut clients, name).await;
        }
        eventually(Duration::from_secs(30), "a pool that is used has a series", async || {
            use_pool(&mut clients, &names[round]).await;
            (series().await > 0).then_some(())
        })
        .await;
        eventually(Duration::from_secs(30), "nothing is left of them", async || {
            (series().await == 0 && world.tasks() < tasks + POOLS / 4).then_some(())
        })
        .await;
    }
    // Those who come just as it ends are served too.
    let name = &names[0];
    for n in 0..60 {
        use_pool(&mut clients, name).await;
        tokio::time::sleep(idle.mul_f64(0.9 + f64::from(n % 20) / 100.0) / 4).await;
    }
}

/// Pools that were used a moment ago, and how many statements of the database in a second they may come to.
const IN_USE: usize = 160;
const STATEMENTS: f64 = 450.0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_pools_that_were_just_used_are_not_read_without_end() {
    let world = World::start().await;
    let clients = world.clients(0).await;
    let mut db = world.sql().await;
    let pools = format!(
        "INSERT INTO pools (pool_id, currency_code, default_lease, min_lease, max_lease, amount_mismatch)
         SELECT 'many-' || n, 'EUR', '1 minute', '1 second', '1 hour', 'ACCEPT' FROM generate_series(1, {IN_USE}) n;
         INSERT INTO accounts (pool_id, account_id, country_code)
         SELECT 'many-' || n, 'account', 'DE' FROM generate_series(1, {IN_USE}) n"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(pools)).execute(&mut db).await.unwrap();
    let mut using = JoinSet::new();
    for part in 0..8 {
        let mut clients = clients.clone();
        using.spawn(async move {
            for n in (1..=IN_USE).filter(|n| n % 8 == part) {
                use_pool(&mut clients, &format!("many-{n}")).await;
            }
        });
    }
    using.join_all().await;
    // Postgres adds up what a connection has done about once a second.
    let pause = Duration::from_millis(2_500);
    let sql = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()";
    let before: i64 = sqlx::query_scalar(sql).fetch_one(&mut db).await.unwrap();
    tokio::time::sleep(pause).await;
    let after: i64 = sqlx::query_scalar(sql).fetch_one(&mut db).await.unwrap();
    let in_a_second = (after - before) as f64 / pause.as_secs_f64();
    assert!(in_a_second < STATEMENTS, "{in_a_second} statements a second for {IN_USE} pools");
}
