//! Callers who go away while Postgres reads for them: what it does for them ends, and until it has ended
//! nobody else has their permits.

use std::time::Duration;

use holdfast::{config::ServeArgs, rpc::pb};
use sqlx::{PgConnection, types::time::OffsetDateTime};
use tokio::task::JoinHandle;

use crate::support::{
    proxy::{
        Proxy,
        postgres::{Fault, Postgres, statement},
    },
    wait::eventually,
    world::{Clients, POOL, World, reason},
};

/// Less than Postgres lets a statement run by itself, 15 s.
const LIMIT: Duration = Duration::from_secs(10);
/// The first words of the statements.
const FOLLOW: &str = "-- What servers that keep";
const LIST: &str = "-- A pool's accounts after $2";

/// A world whose statements that begin with `statement` take as long as Postgres lets them.
async fn slow_world(statement: &str, piece: &str, by: &str) -> (Proxy<Postgres>, World, Clients) {
    let slow =
        |_: &mut ServeArgs, proxy: &Proxy<Postgres>| drop(proxy.rewrite(statement, piece, by));
    let (proxy, world) = World::proxied(slow).await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(3).await;
    (proxy, world, clients)
}

/// How many backends run a statement.
async fn running(db: &mut PgConnection, statement: &str) -> i64 {
    sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND state = 'active' AND starts_with(query, $1)",
    )
    .bind(statement)
    .fetch_one(db)
    .await
    .unwrap()
}

/// Which of them has run for the longest: its backend, and since when.
async fn first_of(db: &mut PgConnection, statement: &str) -> (i32, OffsetDateTime) {
    sqlx::query_as(
        "SELECT pid, query_start FROM pg_stat_activity
         WHERE datname = current_database() AND state = 'active' AND starts_with(query, $1)
         ORDER BY query_start LIMIT 1",
    )
    .bind(statement)
    .fetch_one(db)
    .await
    .unwrap()
}

fn explain(clients: &Clients) -> JoinHandle<Result<(), tonic::Status>> {
    let mut clients = clients.clone();
    tokio::spawn(async move {
        let request = pb::ExplainAcquireRequest { pool_id: POOL.to_owned(), ..Default::default() };
        clients.redemptions.explain_acquire(request).await.map(drop)
    })
}

fn list(clients: &Clients) -> JoinHandle<Result<(), tonic::Status>> {
    let mut clients = clients.clone();
    tokio::spawn(async move {
        let request = pb::ListAccountsRequest { pool_id: POOL.to_owned(), ..Default::default() };
        clients.accounts.list_accounts(request).await.map(drop)
    })
}

/// Callers come and go away, again and again, and never more than `most` statements run.
async fn come_and_go(
    world: &World,
    clients: &[Clients],
    statement: &str,
    most: i64,
    call: fn(&Clients) -> JoinHandle<Result<(), tonic::Status>>,
) {
    let mut db = world.sql().await;
    for _ in 0..4 {
        let callers: Vec<_> =
            clients.iter().flat_map(|clients| (0..8).map(|_| call(clients))).collect();
        eventually(LIMIT, "as many run as may", async || {
            let now = running(&mut db, statement).await;
            assert!(now <= most, "{now} run");
            (now == most).then_some(())
        })
        .await;
        callers.iter().for_each(JoinHandle::abort);
        let now = running(&mut db, statement).await;
        assert!(now <= most, "{now} run after their callers went away");
    }
    eventually(LIMIT, "none runs when its caller has gone", async || {
        (running(&mut db, statement).await == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn explain_acquire_is_refused_while_two_others_are_answered() {
    let (_proxy, world, clients) =
        slow_world(FOLLOW, "FROM of_pool o", "FROM of_pool o CROSS JOIN pg_sleep(60)").await;
    let mut db = world.sql().await;
    let two = [explain(&clients), explain(&clients)];
    eventually(LIMIT, "one reads", async || (running(&mut db, FOLLOW).await > 0).then_some(()))
        .await;
    eventually(LIMIT, "one more is refused", async || {
        // One that came before the second of them waits as that would have.
        let one_more =
            tokio::time::timeout(Duration::from_secs(3), explain(&clients)).await.ok()?;
        assert_eq!(reason(&one_more.unwrap().unwrap_err()), "OVERLOADED");
        Some(())
    })
    .await;
    // Their permits are free when the statement that reads for them has ended in Postgres, not when they leave.
    let reads = first_of(&mut db, FOLLOW).await;
    two.iter().for_each(JoinHandle::abort);
    for _ in 0..3 {
        let error = explain(&clients).await.unwrap().unwrap_err();
        assert_eq!(reason(&error), "OVERLOADED");
    }
    assert_eq!(first_of(&mut db, FOLLOW).await, reads, "it still reads");
}

#[tokio::test]
async fn a_pool_is_read_once_although_all_leave_who_want_an_explanation_of_it() {
    let slow = "FROM found f CROSS JOIN pg_sleep(2)\n    WINDOW";
    let (_proxy, _world, clients) = slow_world(LIST, "FROM found f\n    WINDOW", slow).await;
    let begun = tokio::time::Instant::now();
    // Each leaves long before the pool is read. One that comes when it is here is answered in time.
    loop {
        let explained = explain(&clients);
        let abort = explained.abort_handle();
        match tokio::time::timeout(Duration::from_millis(400), explained).await {
            Ok(Ok(Ok(()))) => break,
            _ => abort.abort(),
        }
        assert!(begun.elapsed() < LIMIT, "it is read again and again");
    }
}

/// All who ask the same while a pool is read, and for a moment after it, are told what was read for the first.
#[tokio::test]
async fn an_explanation_is_read_once_for_all_who_ask_the_same_until_something_changes() {
    let slow = "FROM found f CROSS JOIN pg_sleep(1)\n    WINDOW";
    let (proxy, _world, mut clients) = slow_world(LIST, "FROM found f\n    WINDOW", slow).await;
    let reads = proxy.fault(statement(LIST).always(), Fault::DelayReply(Duration::ZERO));
    let two = [explain(&clients), explain(&clients)];
    for one in two {
        one.await.unwrap().unwrap();
    }
    for _ in 0..20 {
        explain(&clients).await.unwrap().unwrap();
    }
    assert_eq!(reads.matched(), 1, "it is read for the first of them alone");
    clients.create_account("new", |_| {}).await;
    eventually(LIMIT, "the new account is told", async || {
        let explained = clients.explain(pb::AccountSelector::default()).await;
        (explained.verdict_counts.iter().map(|count| count.accounts).sum::<i64>() == 4)
            .then_some(())
    })
    .await;
    assert!(reads.matched() > 1);
}

#[tokio::test]
async fn a_list_ends_with_its_caller_and_one_caller_has_two_at_once() {
    let (_proxy, world, mut clients) = slow_world(
        LIST,
        "FROM found f\n    WINDOW",
        "FROM found f CROSS JOIN pg_sleep(60)\n    WINDOW",
    )
    .await;
    // What only reads has half of the 8 connections, and one caller two of these.
    let others = [world.clients(0).await, world.clients(0).await];
    come_and_go(&world, &[clients.clone()], LIST, 2, list).await;
    come_and_go(&world, &[&[clients.clone()], &others[..]].concat(), LIST, 4, list).await;
    for _ in 0..20 {
        assert_eq!(clients.account("a-000").await.account_id, "a-000");
    }
    // Its own, two of health, which asks over one and commits over the other, and the one that asks.
    let backends = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()";
    let backends: i64 =
        sqlx::query_scalar(backends).fetch_one(&mut world.sql().await).await.unwrap();
    assert!(backends <= 8 + 3, "{backends} backends");
}
