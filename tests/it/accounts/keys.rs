//! The keys of accounts, which the database keeps by itself: there is one of each id, and it is found as quickly
//! however many of its versions cannot be cleared away.

use std::time::Duration;

use holdfast::rpc::pb;
use sqlx::{Connection as _, PgConnection};

use crate::support::{
    plans::psql,
    statements::{plan_as_the_store, run},
    wait::eventually,
    world::{Clients, POOL, World, lease},
};

const LIMIT: Duration = Duration::from_secs(20);

const INSERT: &str = "INSERT INTO accounts (pool_id, account_id) VALUES ($1, $2)";
const INSERT_AS_A_SERVER: &str =
    "INSERT INTO accounts (pool_id, account_id, change_actor) VALUES ($1, $2, 'somebody')";
const INSERT_AS_AN_OLD_SERVER: &str = "INSERT INTO accounts (pool_id, account_id, change_actor)
    VALUES ($1, $2, 'somebody') ON CONFLICT DO NOTHING";

#[tokio::test]
async fn there_is_one_account_of_each_id() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;
    // Its key has another token now.
    cycle(&mut clients).await;
    let mut db = world.sql().await;
    let refused = insert(&mut db, INSERT, "a").await.unwrap_err();
    let refused = refused.as_database_error().unwrap();
    assert!(refused.is_unique_violation(), "{refused}");
    assert!(refused.message().contains("account a of pool"), "{refused}");
    for server in [INSERT_AS_A_SERVER, INSERT_AS_AN_OLD_SERVER] {
        assert_eq!(insert(&mut db, server, "a").await.unwrap(), 0);
    }
    assert_eq!(insert(&mut db, INSERT, "b").await.unwrap(), 1);
}

#[tokio::test]
async fn of_two_who_create_an_account_at_once_one_does() {
    let world = World::start().await;
    for (first, second) in [(INSERT, INSERT), (INSERT, INSERT_AS_A_SERVER)] {
        let id = if second == INSERT { "a" } else { "b" };
        let (mut one, mut other) = (world.sql().await, world.sql().await);
        psql(&mut one, "BEGIN").await;
        insert(&mut one, first, id).await.unwrap();
        let commit = async {
            eventually(LIMIT, "the other waits", async || {
                let waits = "SELECT count(*) FROM pg_stat_activity
                    WHERE datname = current_database() AND wait_event_type = 'Lock'";
                let waits: i64 = sqlx::query_scalar(waits).fetch_one(&mut one).await.unwrap();
                (waits == 1).then_some(())
            })
            .await;
            psql(&mut one, "COMMIT").await;
        };
        let (then, ()) = tokio::join!(insert(&mut other, second, id), commit);
        match then {
            Ok(inserted) => assert_eq!((second, inserted), (INSERT_AS_A_SERVER, 0)),
            Err(error) => {
                assert_eq!(second, INSERT, "{error}");
                assert!(error.as_database_error().unwrap().is_unique_violation(), "{error}");
            }
        }
    }
}

#[tokio::test]
async fn an_id_is_kept_and_used_once() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;
    cycle(&mut clients).await;
    let mut db = world.sql().await;
    let renamed = sqlx::raw_sql("UPDATE accounts SET account_id = 'b'").execute(&mut db).await;
    let refused = renamed.unwrap_err().to_string();
    assert!(refused.contains("account a of pool") && refused.contains("keeps its id"), "{refused}");
    psql(&mut db, "UPDATE accounts SET account_id = 'a'").await;
    // What is told of the old one would be told of the new one.
    psql(&mut db, "DELETE FROM accounts").await;
    let refused = insert(&mut db, INSERT, "a").await.unwrap_err();
    assert!(refused.as_database_error().unwrap().is_unique_violation(), "{refused}");
    assert_eq!(insert(&mut db, INSERT_AS_A_SERVER, "a").await.unwrap(), 0);
}

#[tokio::test]
async fn an_account_with_redemptions_is_not_deleted() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_account("kept", |_| {}).await;
    clients.create_account("unused", |_| {}).await;
    let kept = clients.fill(&world.code("1")).await.account_id;
    let mut db: PgConnection = world.sql().await;
    let refused = sqlx::query("DELETE FROM accounts WHERE account_id = $1")
        .bind(&kept)
        .execute(&mut db)
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("has redemptions"), "{refused}");
    let others = "DELETE FROM accounts a WHERE NOT EXISTS (
        SELECT FROM redemptions r WHERE r.pool_id = a.pool_id AND r.account_id = a.account_id
    )";
    assert_eq!(sqlx::query(others).execute(&mut db).await.unwrap().rows_affected(), 1);
}

#[tokio::test]
async fn a_key_is_found_as_quickly_however_many_versions_a_stranger_s_transaction_keeps() {
    const CYCLES: i64 = 400;
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;
    let mut db = world.sql().await;
    plan_as_the_store(&mut db).await;
    // The first of a connection reads what it is to know of tables and functions.
    pages_of_a_cycle(&mut db, &mut clients).await;
    let at_first = pages_of_a_cycle(&mut db, &mut clients).await;
    // Nothing that dies from now on can be taken away.
    let mut stranger = world.sql().await;
    psql(&mut stranger, "BEGIN").await;
    psql(&mut stranger, "CREATE TABLE of_a_stranger ()").await;
    for _ in 0..CYCLES {
        cycle(&mut clients).await;
    }
    let kept = "SELECT pg_relation_size('accounts') / current_setting('block_size')::int";
    let kept: i64 = sqlx::query_scalar(kept).fetch_one(&mut db).await.unwrap();
    assert!(kept > CYCLES / 20, "{kept} pages hold what died");
    let then = pages_of_a_cycle(&mut db, &mut clients).await;
    // Where the versions are read it is a page for each and each time: four for a cycle.
    assert!(
        then < at_first + CYCLES / 4,
        "{at_first} pages at first, {then} after {CYCLES} cycles"
    );
    stranger.close().await.unwrap();
}

async fn cycle(clients: &mut Clients) {
    let lease = lease(&clients.acquire(|_| {}).await.unwrap());
    clients.release(&lease).await.unwrap();
}

/// How often a page is looked at while the account is acquired and released, and what belongs to it is
/// written: by the statements of the program, and as Postgres counts it.
async fn pages_of_a_cycle(db: &mut PgConnection, clients: &mut Clients) -> i64 {
    // The server's own, which leave the account where its walk finds it.
    let held = lease(&clients.acquire(|_| {}).await.unwrap());
    let release = include_str!("../../../src/store/sql/release.sql");
    let arguments = format!("'{POOL}', '{{{}}}', '{{{}}}'", held.account_id, held.fencing_token);
    let released = run(db, release, &arguments).await;
    let since = "SELECT idle_since::text FROM accounts";
    let since: String = sqlx::query_scalar(since).fetch_one(&mut *db).await.unwrap();
    let acquire = include_str!("../../../src/store/sql/acquire.sql");
    let arguments = format!(
        "'{POOL}', '{{again-{}}}', '{{h}}', '{{1 min}}', NULL, 1, NULL, NULL, NULL, NULL, '{{}}', '{{}}',
         '{{\"\"}}', '{{WAITING}}', '{{1}}', '{{0}}', ARRAY['{since}'::timestamptz], '{{NULL}}', '{{NULL}}'",
        held.fencing_token
    );
    let acquired = run(db, acquire, &arguments).await;
    let again = pb::LeaseRef { fencing_token: held.fencing_token + 1, ..held };
    clients.release(&again).await.unwrap();
    assert_eq!((released.rows, acquired.rows), (1, 1));
    released.pages + acquired.pages
}

async fn insert(db: &mut PgConnection, sql: &'static str, id: &str) -> sqlx::Result<u64> {
    Ok(sqlx::query(sql).bind(POOL).bind(id).execute(db).await?.rows_affected())
}
