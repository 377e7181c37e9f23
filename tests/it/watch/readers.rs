//! Those who watch: many, slow, of little right, and when the server stops.

use std::time::{Duration, Instant};

use holdfast::{config::AccessArgs, domain::access::Role};
use tonic::Code;
use uuid::Uuid;

use super::redeem;
use crate::support::{
    proxy::postgres::{Fault, statement},
    watch::Watch,
    world::{POOL, World, reason},
};

/// Records outcomes by hand: each transaction those of so many redemptions that failed.
async fn record(world: &World, transactions: usize, each: usize) -> Vec<String> {
    let mut db = world.sql().await;
    let mut all = Vec::new();
    for _ in 0..transactions {
        let ids: Vec<_> = (0..each).map(|_| Uuid::now_v7()).collect();
        sqlx::query(
            "WITH new AS (
                 INSERT INTO redemptions (pool_id, redemption_id, account_id, fencing_token, request_id,
                     holder, state, release_on_completion, code_fingerprint, code_last4, not_after, finished_at)
                 SELECT $1, id, 'a', 1, id::text, 'h', 'FAILED', true, id::text::bytea, '0000', now(), now()
                 FROM unnest($2) id
             ), begun AS (
                 INSERT INTO account_events (pool_id, account_id, version, happened_at, actor, reason, from_status,
                     to_status, fencing_token, redemption_id, balance_minor, lease_expires_at)
                 SELECT $1, 'a', e.last + n, now(), 'h', 'redeem_begun',
                     CASE WHEN e.last + n > 1 THEN 'LOCKING' END, 'LOCKING', 1, id, 0, now() + interval '1 minute'
                 FROM unnest($2) WITH ORDINALITY AS u (id, n),
                     (SELECT COALESCE(max(version), 0) AS last FROM account_events WHERE account_id = 'a') e
             )
             INSERT INTO redemption_outcomes (pool_id, system_id, timeline, xid, redemption_ids)
             SELECT $1, c.system_identifier, 1, pg_current_xact_id()::text::bigint, $2 FROM pg_control_system() c",
        )
        .bind(POOL)
        .bind(&ids)
        .execute(&mut db)
        .await
        .unwrap();
        all.extend(ids.iter().map(Uuid::to_string));
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_statement_reads_for_all_who_watch() {
    let (proxy, world) = World::proxied(|_, _| {}).await;
    // Counted by what sees each statement on its way.
    let read = statement("-- Which redemptions got an outcome").always();
    let reads = proxy.fault(read, Fault::DelayReply(Duration::ZERO));
    let mut clients = world.clients(0).await;
    clients.create_accounts(1).await;
    let mut watching = Vec::new();
    for _ in 0..50 {
        watching.push(Watch::open(&mut clients, "now").await.unwrap());
    }
    // All of them have caught up when they are told it.
    let first = redeem(&mut clients, &world.code("one1"), "").await.unwrap();
    for watch in &mut watching {
        assert_eq!(watch.outcome().await.unwrap(), first);
    }
    let (before, begun) = (reads.matched(), Instant::now());
    for name in ["two2", "tre3", "for4"] {
        let next = redeem(&mut clients, &world.code(name), "").await.unwrap();
        for watch in &mut watching {
            assert_eq!(watch.outcome().await.unwrap(), next);
        }
    }
    let polls = begun.elapsed().as_millis() / 200 + 2;
    let reads = u128::try_from(reads.matched() - before).unwrap();
    assert!((1..=polls).contains(&reads), "{reads} statements, {polls} polls");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_loses_nothing_and_holds_nobody_up() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    let mut slow = Watch::begin(&mut clients, "now").await.unwrap();
    let mut quick = Watch::open(&mut clients, "now").await.unwrap();
    slow.message().await.unwrap();
    // More than is kept for who is slower, in transactions of more than a page, and less.
    let mut recorded = record(&world, 30, 20).await;
    recorded.extend(record(&world, 2, 1500).await);
    recorded.extend(record(&world, 40, 7).await);
    for watch in [&mut quick, &mut slow] {
        let told = watch.outcomes(recorded.len()).await;
        assert!(told.iter().map(|(id, _)| id).eq(&recorded), "in their order, each once");
    }
    // Also from the middle of a transaction that has more than a page.
    let mut from_start = Watch::open(&mut clients, "").await.unwrap();
    let told = from_start.outcomes(recorded.len()).await;
    assert!(told.iter().map(|(id, _)| id).eq(&recorded));
    for place in [599, 600, 1111, 2099, 2100, 3599, 3600] {
        let mut resumed = Watch::open(&mut clients, &told[place].1).await.unwrap();
        let rest = resumed.outcomes(recorded.len() - place - 1).await;
        assert!(rest.iter().map(|(id, _)| id).eq(&recorded[place + 1..]), "after {place}");
    }
}

#[tokio::test]
async fn who_may_not_read_others_redemptions_is_told_its_own() {
    let world = World::with(|args| args.access = AccessArgs::on(), 1).await;
    world.clients(0).await.create_accounts(2).await;
    let mut a = world.clients_as(0, "token:a", Role::Redeemer).await;
    let mut b = world.clients_as(0, "token:b", Role::Redeemer).await;
    let mut auditor = world.clients_as(0, "token:auditor", Role::Auditor).await;
    let mut of_b = Watch::open(&mut b, "now").await.unwrap();
    let first = redeem(&mut a, &world.code("one1"), "").await.unwrap();
    let second = redeem(&mut b, &world.code("two2"), "").await.unwrap();
    let mut again = Watch::open(&mut b, "").await.unwrap();
    for watch in [&mut of_b, &mut again] {
        assert_eq!(watch.outcome().await.unwrap(), second, "and not that of the other one");
    }
    let mut all = Watch::open(&mut auditor, "").await.unwrap();
    for redemption in [first, second] {
        assert_eq!(all.outcome().await.unwrap(), redemption);
    }
}

#[tokio::test]
async fn a_server_that_stops_ends_the_streams_at_once() {
    let mut world = World::with(|_| {}, 2).await;
    let mut clients = world.clients(0).await;
    let mut idle = Watch::open(&mut clients, "").await.unwrap();
    // One that takes nothing, with more to take than the server sends ahead.
    let mut slow = Watch::open(&mut clients, "").await.unwrap();
    let recorded = record(&world, 20, 500).await;
    let told = idle.outcomes(recorded.len()).await;
    let server = world.take_server(0);
    let stopper = server.stopper();
    let stopped = tokio::spawn(server.stopped());
    let begun = Instant::now();
    stopper.cancel();
    for watch in [&mut idle, &mut slow] {
        let ended = watch.end().await;
        assert_eq!((ended.code(), &*reason(&ended)), (Code::Unavailable, "SHUTTING_DOWN"));
    }
    stopped.await.unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    // Another one goes on.
    let rest = recorded.iter().position(|id| *id == told[7000].0).unwrap() + 1;
    let mut other = world.clients(0).await;
    let mut resumed = Watch::open(&mut other, &told[7000].1).await.unwrap();
    let resumed = resumed.outcomes(recorded.len() - rest).await;
    assert!(resumed.iter().map(|(id, _)| id).eq(&recorded[rest..]));
}

#[tokio::test]
async fn a_stream_that_has_nothing_to_tell_gives_a_sign_of_life() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    let mut watch = Watch::open(&mut clients, "now").await.unwrap();
    let begun = Instant::now();
    let sign = watch.message().await.unwrap();
    assert_eq!(sign.redemption, None);
    let silence = begun.elapsed();
    assert!((9..13).contains(&silence.as_secs()), "{silence:?}");
    clients.create_accounts(1).await;
    let mut resumed = Watch::open(&mut clients, &sign.cursor).await.unwrap();
    let told = redeem(&mut clients, &world.code("one1"), "").await.unwrap();
    assert_eq!(resumed.outcome().await.unwrap(), told);
    assert_eq!(watch.outcome().await.unwrap(), told);
}
