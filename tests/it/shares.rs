//! One pool's crowd never keeps out another pool, whatever it waits for.

use std::{sync::Arc, time::Duration};

use holdfast::rpc::pb;
use tokio::{sync::Semaphore, task::JoinSet};

use crate::support::{
    batch::{Session, credited, item, opening, said_item},
    world::{Clients, World, lease, reason, seconds},
};

/// The pool with the crowd, of which the metrics tell.
async fn crowded(world: &World, name: &str) -> Clients {
    let mut clients = world.clients(0).await;
    clients.create_pool(name).await;
    clients.create_accounts(8).await;
    clients
}

/// What a caller of the other pool does, call by call and in a batch.
async fn other_pool_is_served(world: &World, clients: &mut Clients, name: &str) {
    let held = lease(&clients.acquire(|_| {}).await.unwrap());
    let code = world.code(&format!("{name}-call"));
    clients.redeem(&held, &code, |_| {}).await.unwrap();
    clients.release(&held).await.unwrap();
    let mut session = Session::open(clients, opening(name)).await.unwrap();
    for n in 0..20 {
        let code = world.code(&format!("{name}-item-{n}"));
        session.send(item(&n.to_string(), &code)).await;
        credited(&session.result().await);
    }
    session.finish().await.unwrap();
    clients.account("a-000").await;
    let request = pb::ExplainAcquireRequest {
        pool_id: crate::support::world::POOL.to_owned(),
        ..Default::default()
    };
    clients.redemptions.explain_acquire(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_who_wait_for_one_pools_accounts_lock_out_no_other_pool() {
    const CROWD: &str = "shares-crowd";
    /// Half of the acquirers that may be unanswered.
    const SHARE: usize = 8192;
    let world = World::start().await;
    let mut clients = crowded(&world, CROWD).await;
    let left = Arc::new(Semaphore::new(0));
    let mut crowd = JoinSet::new();
    // One connection has at most 4,096 calls.
    for _ in 0..3 {
        let clients = world.clients(0).await;
        for _ in 0..3000 {
            let (mut clients, left) = (clients.clone(), Arc::clone(&left));
            crowd.spawn(async move {
                let waits = |wish: &mut pb::AcquireAccountRequest| {
                    wish.pool_id = CROWD.to_owned();
                    wish.wait_timeout = seconds(600.0);
                };
                while let Err(refusal) = clients.acquire(waits).await {
                    assert_eq!(reason(&refusal), "OVERLOADED");
                    tokio::select! {
                        () = tokio::time::sleep(Duration::from_millis(500)) => {}
                        _ = left.acquire() => return,
                    }
                }
            });
        }
    }
    world.callers_wait(0, CROWD, SHARE).await;
    other_pool_is_served(&world, &mut clients, "beside-callers").await;
    world.callers_wait(0, CROWD, SHARE).await;
    left.close();
    crowd.shutdown().await;
    world.callers_wait(0, CROWD, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_of_one_pool_without_accounts_lock_out_no_other_pool() {
    const CROWD: &str = "shares-batches";
    const BATCHES: usize = 19;
    const ITEMS: usize = 1024;
    let world = World::start().await;
    let mut clients = crowded(&world, CROWD).await;
    let mut sending = JoinSet::new();
    for n in 0..BATCHES {
        let open = pb::BatchOpen {
            pool_id: CROWD.to_owned(),
            max_in_flight: 1024,
            item_timeout: seconds(600.0),
            ..opening(&format!("crowd-{n}"))
        };
        let session = Session::open(&mut clients, open).await.unwrap();
        let codes: Vec<_> = (0..ITEMS).map(|item| world.code(&format!("{n}-{item}"))).collect();
        sending.spawn(async move {
            for (n, code) in codes.iter().enumerate() {
                let item = pb::BatchItem {
                    expected: Some(crate::support::world::eur(100)),
                    ..item(&n.to_string(), code)
                };
                if session.items.send(said_item(item)).await.is_err() {
                    break;
                }
            }
            session
        });
    }
    // As many as may be under way at all, of which one pool gets half.
    world.callers_wait(0, CROWD, 16_384).await;
    other_pool_is_served(&world, &mut clients, "beside-batches").await;
    sending.shutdown().await;
    world.callers_wait(0, CROWD, 0).await;
}
