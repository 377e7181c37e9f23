//! Commits in another order than that of their transactions' numbers.

use std::time::Duration;

use sqlx::PgConnection;

use super::redeem;
use crate::support::{
    wait::eventually,
    watch::Watch,
    world::{POOL, World},
};

const LIMIT: Duration = Duration::from_secs(10);

/// Holds back the commit of what settles a redemption of an account, while its name is in a table: by a trigger that runs
/// when the statement is done, and its transaction is to be committed.
async fn can_hold_back(db: &mut PgConnection) {
    sqlx::raw_sql(
        "CREATE TABLE held_back (account_id text PRIMARY KEY);
         CREATE FUNCTION hold_back() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             WHILE EXISTS (
                 SELECT FROM held_back h JOIN redemptions r ON r.account_id = h.account_id
                 WHERE r.pool_id = NEW.pool_id AND r.redemption_id = ANY (NEW.redemption_ids)
             ) LOOP
                 PERFORM pg_sleep(0.02);
             END LOOP;
             RETURN NULL;
         END
         $$;
         CREATE CONSTRAINT TRIGGER hold_back AFTER INSERT ON redemption_outcomes
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION hold_back();",
    )
    .execute(db)
    .await
    .unwrap();
}

#[tokio::test]
async fn an_outcome_whose_commit_is_held_back_comes_later_and_is_not_missed() {
    let world = World::with(|_| {}, 2).await;
    let (mut first, mut second) = (world.clients(0).await, world.clients(1).await);
    first.create_accounts(2).await;
    let mut db = world.sql().await;
    can_hold_back(&mut db).await;
    sqlx::raw_sql("INSERT INTO held_back VALUES ('a-000')").execute(&mut db).await.unwrap();

    let mut watch = Watch::open(&mut first, "").await.unwrap();
    let mut from_now = Watch::open(&mut second, "now").await.unwrap();
    let held = tokio::spawn({
        let (mut clients, code) = (first.clone(), world.code("held"));
        async move { redeem(&mut clients, &code, "a-000").await.unwrap() }
    });
    eventually(LIMIT, "the commit is held back", async || {
        let is_held = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'
                       AND datname = current_database())";
        sqlx::query_scalar::<_, bool>(is_held).fetch_one(&mut db).await.unwrap().then_some(())
    })
    .await;
    // Another server records others meanwhile. They are told at once.
    for name in ["one1", "two2"] {
        let later = redeem(&mut second, &world.code(name), "a-001").await.unwrap();
        for watch in [&mut watch, &mut from_now] {
            assert_eq!(watch.outcome().await.unwrap(), later);
        }
    }
    let (cursor, begun_later) = (watch.cursor.clone(), Watch::open(&mut second, "now").await);
    let numbers = "SELECT xid FROM redemption_outcomes WHERE pool_id = $1 ORDER BY xid DESC";
    let told: Vec<i64> = sqlx::query_scalar(numbers).bind(POOL).fetch_all(&mut db).await.unwrap();
    assert_eq!(told.len(), 2);

    sqlx::raw_sql("DELETE FROM held_back").execute(&mut db).await.unwrap();
    let held = held.await.unwrap();
    let resumed = Watch::open(&mut second, &cursor).await.unwrap();
    for mut watch in [watch, from_now, begun_later.unwrap(), resumed] {
        assert_eq!(watch.outcome().await.unwrap(), held);
    }
    // A cursor that is the highest number would have passed it over.
    let all: Vec<i64> = sqlx::query_scalar(numbers).bind(POOL).fetch_all(&mut db).await.unwrap();
    assert_eq!((&all[..2], all.len()), (&told[..], 3), "its number is lower than those before it");
}

#[tokio::test]
async fn a_transaction_of_another_program_holds_nothing_back() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(1).await;
    let mut db = world.sql().await;
    // It has a number, and stays open.
    sqlx::raw_sql("CREATE TABLE elsewhere (n int); BEGIN; INSERT INTO elsewhere VALUES (1)")
        .execute(&mut db)
        .await
        .unwrap();
    let mut watch = Watch::open(&mut clients, "").await.unwrap();
    for name in ["one1", "two2", "tre3"] {
        let redeemed = redeem(&mut clients, &world.code(name), "").await.unwrap();
        assert_eq!(watch.outcome().await.unwrap(), redeemed);
        let mut resumed = Watch::open(&mut clients, &watch.cursor).await.unwrap();
        let next = world.code(&format!("n{name}"));
        let next = redeem(&mut clients, &next, "").await.unwrap();
        assert_eq!(resumed.outcome().await.unwrap(), next);
        assert_eq!(watch.outcome().await.unwrap(), next);
    }
    sqlx::raw_sql("ROLLBACK").execute(&mut db).await.unwrap();
}
