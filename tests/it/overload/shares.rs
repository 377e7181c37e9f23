//! Shares of pools: the callers of one pool never keep out another pool, whatever they wait for.

use std::{sync::Arc, time::Duration};

use holdfast::{
    rpc::pb,
    simulator::faults::{Fault, Faults, Rule},
};
use sqlx::{Connection as _, PgConnection};
use tokio::{sync::Semaphore, task::JoinSet};

use crate::support::{
    batch::{Session, credited, item, opening, said_item},
    fleet::{Able, Fleet, Setup},
    wait::eventually,
    world::{Clients, POOL, World, lease, reason, seconds},
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
    let request = pb::ExplainAcquireRequest { pool_id: POOL.to_owned(), ..Default::default() };
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
                let waits = |request: &mut pb::AcquireAccountRequest| {
                    request.pool_id = CROWD.to_owned();
                    request.wait_timeout = seconds(600.0);
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
    // As many as may be under way at all, of which one caller gets a quarter.
    world.callers_wait(0, CROWD, 8192).await;
    other_pool_is_served(&world, &mut clients, "beside-batches").await;
    sending.shutdown().await;
    world.callers_wait(0, CROWD, 0).await;
}

/// More than may be at work at once, all of one pool: the provider answers none of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redemptions_of_one_pool_that_the_provider_never_answers_lock_out_no_other_pool() {
    const HUNG: usize = 1500;
    /// Of the 1,024 calls that a server makes to a provider, one pool leaves some to the others.
    const SENT: usize = 911;
    let able = Able { deduplicates: true, looks_up: true, cancels: true };
    // Longer than the test.
    let patient = ["--provider-timeout=5m", "--provider-send-window=10m"];
    let serve = patient.map(str::to_owned).to_vec();
    let mut fleet = Fleet::start(Setup { able, serve, provider: Vec::new() }).await;
    let provider = fleet.go_through_a_proxy();
    fleet.start_server(&[("HOLDFAST_LOG", "info")]).await;
    let mut clients = fleet.clients(0);
    clients.create_pool(POOL).await;
    clients.create_accounts(HUNG).await;
    let prefix = fleet.code("hung");
    let rule = Rule { code_prefix: prefix.clone(), fault: Fault::Stall, times: HUNG as u32 };
    fleet.set_faults(&Faults { rules: vec![rule], ..Faults::default() }).await;
    let acquiring = Arc::new(Semaphore::new(64));
    let mut hung = JoinSet::new();
    for n in 0..HUNG {
        let (mut clients, acquiring) = (clients.clone(), Arc::clone(&acquiring));
        let code = format!("{prefix}-{n}");
        hung.spawn(async move {
            let permit = acquiring.acquire_owned().await.unwrap();
            let held = clients.acquire(|request| request.lease_duration = seconds(600.0)).await;
            let held = lease(&held.unwrap());
            drop(permit);
            loop {
                let named =
                    |request: &mut pb::RedeemRequest| request.request_id = format!("hung {n}");
                match clients.redeem(&held, &code, named).await {
                    Err(refusal) if reason(&refusal) == "OVERLOADED" => {
                        tokio::time::sleep(Duration::from_millis(200)).await;
                    }
                    answer => return answer,
                }
            }
        });
    }
    let mut db = PgConnection::connect(&fleet.db_url).await.unwrap();
    eventually(
        Duration::from_secs(60),
        "all of them wait, and a pool's share for the provider",
        async || {
            let sent = "SELECT count(*) FROM redemptions WHERE state = 'SUBMITTED'";
            let sent: i64 = sqlx::query_scalar(sent).fetch_one(&mut db).await.unwrap();
            let held = "SELECT count(*) FROM accounts WHERE status = 'LOCKING'";
            let held: i64 = sqlx::query_scalar(held).fetch_one(&mut db).await.unwrap();
            let has_share = sent == SENT as i64 && provider.connections() >= SENT;
            (held == HUNG as i64 && has_share).then_some(())
        },
    )
    .await;

    let other = |request: &mut pb::AcquireAccountRequest| request.pool_id = "other".to_owned();
    clients.create_pool("other").await;
    let account =
        pb::Account { pool_id: "other".into(), account_id: "b".into(), ..Default::default() };
    let account = pb::CreateAccountRequest { account: Some(account) };
    clients.accounts.create_account(account).await.unwrap();
    let held = lease(&clients.acquire(other).await.unwrap());
    for n in 0..20 {
        let named = |request: &mut pb::RedeemRequest| request.request_id = format!("other {n}");
        let served = clients.redeem(&held, &fleet.code(&format!("other-{n}")), named).await;
        let redemption = served.unwrap().redemption.unwrap();
        assert_eq!(redemption.state(), pb::RedemptionState::Succeeded);
    }
    assert!(hung.try_join_next().is_none(), "the others wait still");
    // Whoever waited is answered once the provider is; what is in doubt is settled later.
    fleet.set_faults(&Faults::default()).await;
    provider.cut_all().await;
    // What was not sent yet is refused while the provider fails as a whole.
    let mut begun = 0;
    while let Some(answered) = hung.join_next().await {
        match answered.unwrap() {
            Ok(_) => begun += 1,
            Err(refusal) => assert_eq!(reason(&refusal), "PROVIDER_UNAVAILABLE", "{refusal:?}"),
        }
    }
    assert!(begun >= SENT, "{begun} were answered");
}
