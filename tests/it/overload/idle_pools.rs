//! Pools that nobody uses: a server lets go of what it has of them.

use std::time::{Duration, Instant};

use holdfast::rpc::pb;

use tokio::task::JoinSet;

use crate::support::{
    proxy::{
        Proxy,
        postgres::{Fault, Postgres, statement},
    },
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

/// Pools that were used a moment ago.
const IN_USE: usize = 160;
/// How often all pools of a server together are read in a second while nobody waits for their accounts.
const READS: usize = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_pools_that_were_just_used_are_not_read_without_end() {
    let mut proxy = None;
    let mut reads = None;
    let world = World::with(
        |args| {
            use secrecy::ExposeSecret as _;
            let url = args.database_url.as_ref().unwrap().expose_secret().to_owned();
            let before = proxy.insert(Proxy::<Postgres>::before(&url));
            // Counted by what sees each statement on its way.
            let read = statement("-- What servers that keep a pool's accounts in memory").always();
            reads = Some(before.fault(read, Fault::DelayReply(Duration::ZERO)));
            args.database_url = Some(before.url(&url).into());
        },
        1,
    )
    .await;
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
    let reads = reads.unwrap();
    let before = reads.matched();
    let begun = Instant::now();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (read, seconds) = (reads.matched() - before, begun.elapsed().as_secs_f64());
    // Each may be due at once when this begins.
    let most = IN_USE + (READS as f64 * seconds) as usize;
    assert!(read <= most, "{read} reads of {IN_USE} pools in {seconds} s");
    assert!(read > 0, "no pool was read");
}
