//! Cursors of which the database knows nothing, and those that outlive a failover.

use holdfast::domain::{
    id::PoolId,
    outcomes::{Mark, Position},
};
use tonic::Code;

use super::redeem;
use crate::support::{
    watch::Watch,
    world::{POOL, World, bad_fields, reason},
};

fn pool() -> PoolId {
    PoolId::parse(POOL).unwrap()
}

#[tokio::test]
async fn a_cursor_of_a_database_that_was_set_back_is_lost_and_not_passed_over() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(1).await;
    redeem(&mut clients, &world.code("one1"), "").await.unwrap();
    let mut watch = Watch::open(&mut clients, "").await.unwrap();
    watch.outcome().await.unwrap();
    let good = Position::of_cursor(&pool(), &watch.cursor).unwrap();
    let now = good.newest().clone();
    let lost: [fn(&mut Position); 4] = [
        // The database was made again, and has given other numbers since; or less were.
        |position| position.seen.era.system_id += 1,
        |position| position.seen.era.timeline += 1,
        |position| position.seen.next_xid += 1_000_000,
        |position| position.last.as_mut().unwrap().xid -= 1,
    ];
    for (number, spoil) in lost.into_iter().enumerate() {
        let mut position = Position::at(now.clone(), good.last);
        spoil(&mut position);
        let refused = Watch::open(&mut clients, &position.cursor(&pool())).await.err().unwrap();
        let told = (refused.code(), reason(&refused));
        assert_eq!(told, (Code::FailedPrecondition, "CURSOR_LOST".to_owned()), "{number}");
    }
    Watch::open(&mut clients, &watch.cursor).await.unwrap();
}

#[tokio::test]
async fn numbers_of_transactions_that_are_given_again_after_a_failover_hide_nothing() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(1).await;
    let told = redeem(&mut clients, &world.code("one1"), "").await.unwrap();
    let mut watch = Watch::open(&mut clients, "").await.unwrap();
    assert_eq!(watch.outcome().await.unwrap(), told);
    let mut db = world.sql().await;
    // As if it had been told before a failover that gave the numbers again, and more.
    sqlx::raw_sql(
        "ALTER TABLE redemption_outcomes DISABLE TRIGGER USER;
         UPDATE redemption_outcomes SET timeline = timeline - 1",
    )
    .execute(&mut db)
    .await
    .unwrap();
    let mut position = Position::of_cursor(&pool(), &watch.cursor).unwrap();
    let mut seen = position.newest().clone();
    seen.era.timeline -= 1;
    seen.next_xid += 1_000_000;
    let Mark { mut era, xid, number } = position.last.unwrap();
    era.timeline -= 1;
    position = Position::at(seen, Some(Mark { era, xid, number }));
    let mut watch = Watch::open(&mut clients, &position.cursor(&pool())).await.unwrap();
    let next = redeem(&mut clients, &world.code("two2"), "").await.unwrap();
    assert_eq!(watch.outcome().await.unwrap(), next);
}

#[tokio::test]
async fn what_is_no_cursor_of_the_pool_is_refused() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    let watch = Watch::open(&mut clients, "now").await.unwrap();
    let position = Position::of_cursor(&pool(), &watch.cursor).unwrap();
    let of_another = position.cursor(&PoolId::parse("another").unwrap());
    let cut_off = &watch.cursor[..watch.cursor.len() - 1];
    for bad in [&*of_another, cut_off, "?", "NOW", &"A".repeat(20_000)] {
        let refused = Watch::open(&mut clients, bad).await.err().unwrap();
        assert_eq!(bad_fields(&refused), ["after"], "{bad}");
    }
    let missing = holdfast::rpc::pb::WatchRedemptionsRequest {
        pool_id: "none".to_owned(),
        ..Default::default()
    };
    let missing = clients.redemptions.watch_redemptions(missing).await.unwrap_err();
    assert_eq!(reason(&missing), "POOL_NOT_FOUND");
}
