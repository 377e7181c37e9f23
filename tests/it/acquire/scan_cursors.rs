//! Cursors of the scans of free accounts: a scan begins where an earlier one ended, and no account that
//! came back before that is missed.

use std::time::Duration;

use holdfast::rpc::pb;
use sqlx::{Connection as _, PgConnection};

use crate::support::{
    plans::{CARD, psql},
    wait::eventually,
    world::{Clients, World, eur, lease, seconds},
};

/// Entries that are in the way.
const DEAD: usize = 25_000;
const LIMIT: Duration = Duration::from_secs(20);

/// Acquires and releases, and says what was picked.
async fn picked(clients: &mut Clients) -> String {
    let lease = lease(&clients.acquire(|_| {}).await.unwrap());
    clients.release(&lease).await.unwrap();
    lease.account_id
}

#[tokio::test]
async fn accounts_that_were_taken_are_not_read_again_during_a_long_running_transaction() {
    const CYCLES: usize = 400;
    let mut world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(20).await;
    let other_program = open_transaction(&world).await;
    for _ in 0..CYCLES {
        picked(&mut clients).await;
    }
    let read = entries_read(&mut world).await;
    // Walks from the beginning read one dead entry for each cycle before: 80,000 in all.
    assert!((CYCLES..CYCLES * CYCLES / 8).contains(&read), "{read} entries of the index were read");
    other_program.close().await.unwrap();
    world.start_server().await;
}

/// Of several that are under way, the fullest and the emptiest are far from each other, and what stood between
/// them is dead.
#[tokio::test]
async fn what_came_back_is_looked_at_where_it_stands() {
    const CARDS: usize = 60;
    let mut world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_plan("plan", 1000 * CARD).await;
    let other_program = open_transaction(&world).await;
    let mut db = world.sql().await;
    leave_dead_entries(&mut db, "PROCESSING", 400 * CARD).await;
    for (account_id, cards) in [("full", 800), ("empty", 0)] {
        let account = |account: &mut pb::Account| {
            account.plan_id = "plan".into();
            account.balance = Some(eur(cards * CARD));
        };
        clients.create_account(account_id, account).await;
    }
    let mut held = Vec::new();
    for n in 0..CARDS {
        for account_id in ["full", "empty"] {
            let lease = clients.acquire_for(CARD).await.unwrap();
            assert_eq!(lease.account_id, account_id, "after {n} cards each");
            held.push(lease);
        }
        for lease in held.drain(..) {
            let code = world.code(&format!("{n}-{}", lease.account_id));
            let release = |request: &mut pb::RedeemRequest| request.release_on_completion = true;
            clients.redeem(&lease, &code, release).await.unwrap();
        }
    }
    let read = entries_read(&mut world).await;
    // From the one to the other they are read for each card.
    assert!((DEAD..CARDS / 4 * DEAD).contains(&read), "{read} entries of the index were read");
    other_program.close().await.unwrap();
    world.start_server().await;
}

#[tokio::test]
async fn what_has_rested_is_looked_at_where_it_stands() {
    const CARDS: usize = 300;
    let mut world = World::start().await;
    let mut clients = world.clients(0).await;
    let rest = |plan: &mut pb::Plan| plan.redemption_interval = seconds(0.02);
    clients.create_plan_with("plan", 1000 * CARD, rest).await;
    let other_program = open_transaction(&world).await;
    let mut db = world.sql().await;
    leave_dead_entries(&mut db, "WAITING", 900 * CARD).await;
    for n in 0..30 {
        clients.create_account(&format!("a-{n}"), |account| account.plan_id = "plan".into()).await;
    }
    for n in 0..CARDS {
        clients.fill(&world.code(&n.to_string())).await;
    }
    let read = entries_read(&mut world).await;
    // Scans from the beginning take a four hundredth of the time, and are not made each time that an account is promoted.
    assert!((DEAD..5 * DEAD).contains(&read), "{read} entries of the index were read");
    other_program.close().await.unwrap();
    world.start_server().await;
}

/// The fullest is the first that is picked, whichever of them came back last, also where several are wanted
/// at once.
#[tokio::test]
async fn accounts_that_came_back_are_picked_in_their_order() {
    const ACCOUNTS: i64 = 6;
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_plan("plan", 1000 * CARD).await;
    for n in 0..ACCOUNTS {
        let account = |account: &mut pb::Account| {
            account.plan_id = "plan".into();
            account.balance = Some(eur(n * 10 * CARD));
        };
        clients.create_account(&format!("a-{n}"), account).await;
    }
    for round in 0..20 {
        let mut held = Vec::new();
        for n in (0..ACCOUNTS).rev() {
            let lease = clients.acquire_for(CARD).await.unwrap();
            assert_eq!(lease.account_id, format!("a-{n}"), "in round {round}");
            held.push(lease);
        }
        held.rotate_left(round % 6);
        for lease in held {
            let code = world.code(&format!("{round}-{}", lease.account_id));
            let release = |request: &mut pb::RedeemRequest| request.release_on_completion = true;
            clients.redeem(&lease, &code, release).await.unwrap();
        }
    }
}

/// A connection in whose transaction something was written: nothing that dies from now on can be taken away.
async fn open_transaction(world: &World) -> PgConnection {
    let mut other_program = world.sql().await;
    psql(&mut other_program, "BEGIN").await;
    psql(&mut other_program, "CREATE TABLE of_another_program ()").await;
    other_program
}

/// Leaves as many dead entries in the index of free accounts as a busy minute does, of accounts of the plan that
/// are as full, and have the status, and are not free.
async fn leave_dead_entries(db: &mut PgConnection, status: &str, balance_minor: i64) {
    let paused = format!(
        "INSERT INTO accounts (pool_id, account_id, plan_id, status, paused, balance_minor)
         SELECT pool_id, 'paused-' || n, 'plan', '{status}', true, {balance_minor}
         FROM plans, generate_series(1, 500) n"
    );
    psql(db, &paused).await;
    for _ in 0..2 * DEAD / 500 {
        psql(db, "UPDATE accounts SET paused = NOT paused").await;
    }
}

/// How many entries of the index of free accounts the server has read.
async fn entries_read(world: &mut World) -> usize {
    // Its connections tell when they end.
    world.take_server(0).stop().await.unwrap();
    let read = "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'accounts_free'";
    let read: i64 = sqlx::query_scalar(read).fetch_one(&mut world.sql().await).await.unwrap();
    usize::try_from(read).unwrap()
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
async fn an_account_that_is_changed_is_seen_by_the_next_scan() {
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
