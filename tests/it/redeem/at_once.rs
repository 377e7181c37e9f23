//! Cards whose account is free: the lease and the redemption begin in one change.

use std::time::Duration;

use holdfast::rpc::pb::{self, RedemptionState};
use sqlx::Connection as _;

use super::card::{card, redeem_card};
use crate::support::{
    batch::{item, opening, run},
    proxy::{
        Fired, Proxy,
        postgres::{Fault, Postgres, statement},
    },
    world::{Clients, POOL, World, eur},
};

/// Counts the statements that change accounts: begins, and all others.
fn counted(proxy: &Proxy<Postgres>) -> [Fired; 2] {
    ["-- Begin:", "-- Apply:"]
        .map(|words| proxy.fault(statement(words).always(), Fault::DelayReply(Duration::ZERO)))
}

async fn reasons(clients: &mut Clients, account_id: &str) -> Vec<String> {
    let events = clients.events(account_id).await;
    events.into_iter().rev().map(|event| event.reason).collect()
}

#[tokio::test]
async fn redeem_card_changes_its_account_twice_where_one_is_free() {
    let (proxy, world) = World::proxied(|_, _| {}).await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(1).await;
    let [begins, others] = counted(&proxy);
    let reply = redeem_card(&mut clients, card("r", &world.code("one"))).await.unwrap();
    let redemption = reply.redemption.unwrap();
    assert_eq!(redemption.state(), RedemptionState::Succeeded);
    assert_eq!((begins.matched(), others.matched()), (1, 1));
    let events = clients.events("a-000").await;
    let told: Vec<_> =
        events.iter().rev().map(|event| (&*event.reason, &*event.redemption_id)).collect();
    let id = &*redemption.redemption_id;
    assert_eq!(told, [("created", ""), ("acquired", id), ("redeemed", id)]);
    assert_eq!(redemption.fencing_token, 1);
}

#[tokio::test]
async fn items_of_a_batch_change_their_accounts_twice_where_some_are_free() {
    let (proxy, world) = World::proxied(|_, _| {}).await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(1).await;
    let [begins, others] = counted(&proxy);
    let code = world.code("one");
    let item = pb::BatchItem { expected: Some(eur(1000)), ..item("i", &code) };
    let told = run(&mut clients, opening("b"), &[item]).await.unwrap();
    assert_eq!(told.summary.succeeded, 1);
    assert_eq!((begins.matched(), others.matched()), (1, 1));
    assert_eq!(reasons(&mut clients, "a-000").await, ["created", "acquired", "redeemed"]);
}

#[tokio::test]
async fn a_card_whose_begin_was_written_and_not_answered_is_sent_once() {
    let (proxy, world) = World::proxied(|_, _| {}).await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(2).await;
    let lost = proxy.fault(statement("-- Begin:"), Fault::CutReply);
    let reply = redeem_card(&mut clients, card("r", &world.code("one"))).await.unwrap();
    assert_eq!(lost.times(), 1);
    let redemption = reply.redemption.unwrap();
    assert_eq!((redemption.state(), reply.replayed), (RedemptionState::Succeeded, false));
    assert_eq!(redemption.attempts, 1);
    let other = if redemption.account_id == "a-000" { "a-001" } else { "a-000" };
    assert_eq!(reasons(&mut clients, other).await, ["created"]);
}

#[tokio::test]
async fn a_card_gets_another_account_where_somebody_holds_the_row_of_the_first() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(2).await;
    let mut db = world.sql().await;
    let mut held = db.begin().await.unwrap();
    // The accounts are alike, so the one that was unused for longer is chosen.
    let row = "SELECT account_id FROM accounts WHERE pool_id = $1 ORDER BY idle_since, account_id
               LIMIT 1 FOR UPDATE";
    let first: String = sqlx::query_scalar(row).bind(POOL).fetch_one(&mut *held).await.unwrap();
    let reply = redeem_card(&mut clients, card("r", &world.code("one"))).await.unwrap();
    let redemption = reply.redemption.unwrap();
    assert_eq!(redemption.state(), RedemptionState::Succeeded);
    assert_ne!(redemption.account_id, first);
    held.rollback().await.unwrap();
}
