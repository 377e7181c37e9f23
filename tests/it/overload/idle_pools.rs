//! Pools that nobody uses: a server lets go of what it has of them.

use std::time::Duration;

use holdfast::rpc::pb;

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
