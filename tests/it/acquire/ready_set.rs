//! The ready set: accounts are chosen from memory, so what memory does not know yet must harm nobody, and is found
//! out before anybody is told that there is none.

use std::time::Duration;

use holdfast::rpc::pb;

use crate::support::{
    plans::{CARD, psql},
    wait::eventually,
    world::{Clients, World, eur, lease, reason, seconds},
};

const LIMIT: Duration = Duration::from_secs(60);

/// Acquires and releases, and says what was picked.
async fn picked(clients: &mut Clients) -> String {
    let held = lease(&clients.acquire(|_| {}).await.unwrap());
    clients.release(&held).await.unwrap();
    held.account_id
}

async fn set_paused(clients: &mut Clients, account_id: &str, paused: bool) {
    let change = |account: &mut pb::Account| account.paused = Some(paused);
    clients.update_account(account_id, &["paused"], change).await.unwrap();
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
async fn an_account_that_is_changed_is_seen_by_the_next_choice() {
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

/// Acquires, and does not wait.
async fn at_once(clients: &mut Clients) -> Result<pb::LeaseRef, tonic::Status> {
    clients.acquire(|_| {}).await.map(|acquired| lease(&acquired))
}

/// Before anybody is told that there is none, it is read what others changed: each way in which an account can come
/// to be free elsewhere.
#[tokio::test]
async fn an_account_that_is_free_in_the_database_is_found_by_one_who_does_not_wait() {
    let world = World::with(|_| {}, 2).await;
    let mut clients = world.clients(0).await;
    let mut elsewhere = world.clients(1).await;
    let mut db = world.sql().await;
    let refused = |answer: Result<_, tonic::Status>| {
        assert_eq!(reason(&answer.unwrap_err()), "NO_ACCOUNT_AVAILABLE");
    };
    refused(at_once(&mut clients).await);
    // Another server creates it.
    elsewhere.create_account("a", |_| {}).await;
    let held = at_once(&mut clients).await.unwrap();
    refused(at_once(&mut clients).await);
    // Another server releases it.
    elsewhere.release(&held).await.unwrap();
    let held = at_once(&mut clients).await.unwrap();
    clients.release(&held).await.unwrap();
    // A person pauses it, and takes that back.
    psql(&mut db, "UPDATE accounts SET paused = true").await;
    refused(at_once(&mut clients).await);
    psql(&mut db, "UPDATE accounts SET paused = false").await;
    let held = at_once(&mut clients).await.unwrap();
    // A person creates one.
    psql(&mut db, "INSERT INTO accounts (pool_id, account_id) VALUES ('pool', 'b')").await;
    let other = at_once(&mut clients).await.unwrap();
    assert_eq!(other.account_id, "b");
    clients.release(&held).await.unwrap();
    clients.release(&other).await.unwrap();
    // A person deletes one: it is not offered any more, and not explained.
    psql(&mut db, "DELETE FROM accounts WHERE account_id = 'a'").await;
    let held = at_once(&mut clients).await.unwrap();
    assert_eq!(held.account_id, "b");
    let explained = clients.explain(pb::AccountSelector::default()).await;
    assert_eq!(explained.verdict_counts.iter().map(|count| count.accounts).sum::<i64>(), 1);
    clients.release(&held).await.unwrap();
}

/// Transactions do not commit in the order in which they began. One that commits late is not skipped.
#[tokio::test]
async fn a_change_that_is_committed_late_is_seen() {
    let world = World::with(|_| {}, 2).await;
    let mut clients = world.clients(0).await;
    let mut elsewhere = world.clients(1).await;
    clients.create_accounts(2).await;
    let paused = picked(&mut clients).await;
    set_paused(&mut clients, &paused, true).await;
    let mut slow = world.sql().await;
    psql(&mut slow, "BEGIN").await;
    psql(&mut slow, &format!("UPDATE accounts SET paused = false WHERE account_id = '{paused}'"))
        .await;
    // Others' changes are read meanwhile, which began later.
    for _ in 0..5 {
        assert_ne!(picked(&mut elsewhere).await, paused);
        let held = at_once(&mut clients).await.unwrap();
        assert_eq!(reason(&at_once(&mut clients).await.unwrap_err()), "NO_ACCOUNT_AVAILABLE");
        clients.release(&held).await.unwrap();
    }
    psql(&mut slow, "COMMIT").await;
    let held = at_once(&mut clients).await.unwrap();
    let other = at_once(&mut clients).await.unwrap();
    assert!([&held, &other].iter().any(|lease| lease.account_id == paused));
    clients.release(&held).await.unwrap();
    clients.release(&other).await.unwrap();
}

/// One who waits gets an account that another server gives back, at the next poll.
#[tokio::test]
async fn one_who_waits_gets_what_another_server_gives_back() {
    let world = World::with(|_| {}, 2).await;
    let mut clients = world.clients(0).await;
    let mut elsewhere = world.clients(1).await;
    clients.create_account("a", |_| {}).await;
    for _ in 0..10 {
        let held = at_once(&mut elsewhere).await.unwrap();
        let mut waiter = clients.clone();
        let waiting = tokio::spawn(async move {
            waiter.acquire(|request| request.wait_timeout = seconds(30.0)).await
        });
        clients.until_waiting(1).await;
        elsewhere.release(&held).await.unwrap();
        let held = lease(&waiting.await.unwrap().unwrap());
        clients.release(&held).await.unwrap();
    }
}

/// A request that has a lease gets that, also where no other account is free.
#[tokio::test]
async fn one_request_asked_many_times_gets_the_only_account_each_time() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;
    for round in 0..20 {
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let mut clients = clients.clone();
            calls.spawn(async move {
                let acquired = clients.acquire(|r| r.request_id = format!("once-{round}")).await;
                lease(&acquired.unwrap())
            });
        }
        let leases = calls.join_all().await;
        assert!(leases.iter().all(|other| *other == leases[0]), "{leases:?}");
        clients.release(&leases[0]).await.unwrap();
    }
}
