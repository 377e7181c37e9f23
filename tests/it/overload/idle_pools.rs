//! Pools that nobody uses: a server lets go of what it has of them.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::support::{
    plans::psql,
    proxy::postgres::{Fault, statement},
    wait::eventually,
    world::{Clients, World, lease},
};

const POOLS: usize = 40;

/// A pool of few accounts is let go of after so great a part of the time that is set.
const PART: u32 = 20;
/// The most accounts of such a pool.
const FEW: usize = 1_000;

async fn create_accounts(world: &World, pool_id: &str, accounts: usize) {
    let insert = format!(
        "INSERT INTO accounts (pool_id, account_id)
         SELECT '{pool_id}', 'a-' || n FROM generate_series(1, {accounts}) n"
    );
    psql(&mut world.sql().await, &insert).await;
}

/// How many pools with such names have a series of those who wait.
async fn series(world: &World, names: &str) -> usize {
    let url = format!("http://{}/metrics", world.server(0).admin_addr());
    let metrics = reqwest::get(&url).await.unwrap().text().await.unwrap();
    let name = format!("holdfast_acquire_waiting{{pool_id=\"{names}");
    metrics.lines().filter(|line| line.starts_with(&name)).count()
}

async fn use_pool(clients: &mut Clients, pool_id: &str) {
    let held = clients.acquire(|request| request.pool_id = pool_id.to_owned()).await.unwrap();
    clients.release(&lease(&held)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_nobody_uses_for_long_has_no_task_and_no_series_and_is_served_again() {
    let idle = Duration::from_millis(500);
    let world = World::with(|args| args.limits.idle_pool_timeout = PART * idle, 1).await;
    let mut clients = world.clients(0).await;
    let names: Vec<_> = (0..POOLS).map(|n| format!("idle-{n}")).collect();
    for name in &names {
        clients.create_pool(name).await;
        create_accounts(&world, name, 1).await;
    }
    let series = async || series(&world, "idle-").await;
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

/// What is quick to read again leaves early, and what is not stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_of_few_accounts_is_let_go_of_early_and_one_of_many_is_not() {
    let idle = Duration::from_secs(30);
    let world = World::with(|args| args.limits.idle_pool_timeout = idle, 1).await;
    let mut clients = world.clients(0).await;
    for (name, accounts) in [("stays-many", FEW + 1), ("leaves-few", FEW), ("leaves-one", 1)] {
        clients.create_pool(name).await;
        create_accounts(&world, name, accounts).await;
    }
    // The large one is used first: it is unused for longer than the others.
    use_pool(&mut clients, "stays-many").await;
    let begun = Instant::now();
    let names = ["leaves-few", "leaves-one"];
    eventually(Duration::from_secs(30), "the small ones have series", async || {
        for name in names {
            use_pool(&mut clients, name).await;
        }
        (series(&world, "leaves-").await == 2).then_some(())
    })
    .await;
    eventually(idle / 2, "nothing is left of the small ones", async || {
        (series(&world, "leaves-").await == 0).then_some(())
    })
    .await;
    let stays = series(&world, "stays-").await;
    assert!(stays == 1 || begun.elapsed() >= idle, "{stays} of the large one");
}

/// Pools that were used a moment ago.
const IN_USE: usize = 160;
/// How often all pools of a server together are read in a second while nobody waits for their accounts.
const READS: usize = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_pools_that_were_just_used_are_not_read_without_end() {
    let (proxy, world) = World::proxied(|_, _| {}).await;
    // Counted by what sees each statement on its way.
    let read = statement("-- What servers that keep a pool's accounts in memory").always();
    let reads = proxy.fault(read, Fault::DelayReply(Duration::ZERO));
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
    let before = reads.matched();
    let begun = Instant::now();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (read, seconds) = (reads.matched() - before, begun.elapsed().as_secs_f64());
    // Each may be due at once when this begins.
    let most = IN_USE + (READS as f64 * seconds) as usize;
    assert!(read <= most, "{read} reads of {IN_USE} pools in {seconds} s");
    assert!(read > 0, "no pool was read");
}
