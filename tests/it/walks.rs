//! Walks along the index of free accounts begin where earlier ones came to, and pass by nothing that stands
//! before that.

use std::time::Duration;

use holdfast::rpc::pb;
use sqlx::Connection as _;

use crate::support::{
    plans::{CARD, psql},
    wait::eventually,
    world::{Clients, World, lease},
};

const LIMIT: Duration = Duration::from_secs(20);

/// Acquires and releases, and says what was picked.
async fn picked(clients: &mut Clients) -> String {
    let lease = lease(&clients.acquire(|_| {}).await.unwrap());
    clients.release(&lease).await.unwrap();
    lease.account_id
}

#[tokio::test]
async fn what_was_taken_is_not_read_again_however_old_a_stranger_s_transaction_is() {
    const CYCLES: i64 = 400;
    let mut world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(20).await;
    // Nothing that dies from now on can be taken away.
    let mut stranger = world.sql().await;
    psql(&mut stranger, "BEGIN").await;
    psql(&mut stranger, "CREATE TABLE of_a_stranger ()").await;
    for _ in 0..CYCLES {
        picked(&mut clients).await;
    }
    // Its connections tell what they read when they end.
    world.take_server(0).stop().await.unwrap();
    let mut db = world.sql().await;
    let read = "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'accounts_free'";
    let read: i64 = sqlx::query_scalar(read).fetch_one(&mut db).await.unwrap();
    // Walks from the beginning read one dead entry for each cycle before: 80,000 in all.
    assert!((CYCLES..CYCLES * CYCLES / 8).contains(&read), "{read} entries of the index were read");
    stranger.close().await.unwrap();
    world.start_server().await;
}

#[tokio::test]
async fn an_account_that_became_fuller_is_the_next_that_is_picked() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_plan("plan", 30 * CARD).await;
    for account_id in ["a", "b", "c"] {
        clients.create_account(account_id, |account| account.plan_id = "plan".into()).await;
    }
    let first = clients.fill(&world.code("first")).await.account_id;
    for n in 0..20 {
        let next = clients.fill(&world.code(&format!("{n}"))).await.account_id;
        assert_eq!(next, first, "after {n} more");
    }
}

#[tokio::test]
async fn an_account_that_is_changed_is_seen_by_the_next_walk() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(5).await;
    let paused = picked(&mut clients).await;
    set_paused(&mut clients, &paused, true).await;
    for _ in 0..8 {
        assert_ne!(picked(&mut clients).await, paused);
    }
    set_paused(&mut clients, &paused, false).await;
    assert_eq!(picked(&mut clients).await, paused, "it is the one that is longest unused");
}

#[tokio::test]
async fn what_another_server_changes_is_seen_soon() {
    let world = World::with(|_| {}, 2).await;
    let mut clients = world.clients(0).await;
    let mut elsewhere = world.clients(1).await;
    clients.create_accounts(5).await;
    let paused = picked(&mut clients).await;
    set_paused(&mut elsewhere, &paused, true).await;
    for _ in 0..8 {
        assert_ne!(picked(&mut clients).await, paused);
    }
    set_paused(&mut elsewhere, &paused, false).await;
    eventually(LIMIT, "the account is picked", async || {
        (picked(&mut clients).await == paused).then_some(())
    })
    .await;
}

async fn set_paused(clients: &mut Clients, account_id: &str, paused: bool) {
    let change = |account: &mut pb::Account| account.paused = Some(paused);
    clients.update_account(account_id, &["paused"], change).await.unwrap();
}
