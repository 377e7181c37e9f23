//! Keys of accounts, which the database keeps by itself. There is one account of each id. It is found as
//! quickly however many dead versions of its row there are.

use std::time::Duration;

use holdfast::rpc::pb;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::support::{
    plans::psql,
    statements::{plan_as_the_store, run},
    wait::eventually,
    world::{Clients, POOL, World, lease},
};

const LIMIT: Duration = Duration::from_secs(20);

const INSERT: &str = "INSERT INTO accounts (pool_id, account_id) VALUES ($1, $2)";
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
    let again = clients.accounts.create_account(create("a")).await.unwrap_err();
    assert_eq!(again.code(), tonic::Code::AlreadyExists);
    assert_eq!(insert(&mut db, INSERT, "b").await.unwrap(), 1);
}

#[tokio::test]
async fn of_two_who_create_an_account_at_once_one_does() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    for is_by_hand in [true, false] {
        let id = if is_by_hand { "a" } else { "b" };
        let (mut one, mut other) = (world.sql().await, world.sql().await);
        psql(&mut one, "BEGIN").await;
        insert(&mut one, INSERT, id).await.unwrap();
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
        if is_by_hand {
            let (then, ()) = tokio::join!(insert(&mut other, INSERT, id), commit);
            let error = then.unwrap_err();
            assert!(error.as_database_error().unwrap().is_unique_violation(), "{error}");
        } else {
            let (then, ()) = tokio::join!(clients.accounts.create_account(create(id)), commit);
            assert_eq!(then.unwrap_err().code(), tonic::Code::AlreadyExists);
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
    let again = clients.accounts.create_account(create("a")).await.unwrap_err();
    assert_eq!(again.code(), tonic::Code::AlreadyExists);
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
async fn a_key_is_found_as_quickly_however_many_versions_a_long_running_transaction_keeps() {
    const CYCLES: i64 = 400;
    const LEASED: usize = 20;
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    // Others that are leased meanwhile: of a pool with a single account Postgres reads the whole index.
    for number in 0..LEASED {
        clients.create_account(&format!("other-{number}"), |_| {}).await;
        clients.acquire(|_| {}).await.unwrap();
    }
    clients.create_account("a", |_| {}).await;
    let mut db = world.sql().await;
    plan_as_the_store(&mut db).await;
    // The first of a connection reads what it is to know of tables and functions.
    pages_of_a_cycle(&mut db).await;
    let at_first = pages_of_a_cycle(&mut db).await;
    // Nothing that dies from now on can be taken away.
    let mut other_program = world.sql().await;
    psql(&mut other_program, "BEGIN").await;
    psql(&mut other_program, "CREATE TABLE of_another_program ()").await;
    for _ in 0..CYCLES {
        cycle(&mut clients).await;
    }
    let kept = "SELECT pg_relation_size('accounts') / current_setting('block_size')::int";
    let kept: i64 = sqlx::query_scalar(kept).fetch_one(&mut db).await.unwrap();
    assert!(kept > CYCLES / 20, "{kept} pages hold what died");
    // Statements are planned anew with what is true now, as autovacuum lets them at any time.
    psql(&mut db, "ANALYZE accounts, leases").await;
    let then = pages_of_a_cycle(&mut db).await;
    // Where the versions are read it is a page for each and each time: four for a cycle.
    assert!(
        then < at_first + CYCLES / 20,
        "{at_first} pages at first, {then} after {CYCLES} cycles"
    );
    other_program.close().await.unwrap();
}

async fn cycle(clients: &mut Clients) {
    let lease = lease(&clients.acquire(|_| {}).await.unwrap());
    clients.release(&lease).await.unwrap();
}

/// How often a page is read while the account is leased and released, and what belongs to it is written: by the
/// statements of the program, and as Postgres counts it.
async fn pages_of_a_cycle(db: &mut PgConnection) -> i64 {
    let leased = "'guard', 'free', 'actor', 'h', 'reason', 'acquired', 'status', 'LOCKING', 'resume_status', 'WAITING',
         'holder', 'h', 'fencing_token', a.fencing_token + 1, 'lease_request_id', a.version,
         'lease_principal', 'p', 'principal', 'p', 'lease_for', '1 minute'";
    let released =
        "'guard', 'none', 'actor', 'h', 'reason', 'released', 'status', 'WAITING', 'holder', NULL,
         'lease_request_id', NULL, 'principal', 'p', 'lease_end', 'released', 'goes_idle', true";
    apply(db, leased).await + apply(db, released).await
}

/// Changes the account as a server would, and says how often a page was read.
async fn apply(db: &mut PgConnection, next: &str) -> i64 {
    let change = format!(
        "SELECT array_agg(jsonb_populate_record(NULL::account_change, to_jsonb(a) || jsonb_build_object(
             'seen', a.change_id, 'seen_token', a.fencing_token, 'change_id', gen_random_uuid(), 'credit_minor', 0,
             {next}
         )))::text FROM accounts a WHERE account_id = 'a'"
    );
    let change: String =
        sqlx::query_scalar(AssertSqlSafe(change)).fetch_one(&mut *db).await.unwrap();
    let revision = "SELECT revision FROM pools";
    let revision: i64 = sqlx::query_scalar(revision).fetch_one(&mut *db).await.unwrap();
    let apply = include_str!("../../../src/store/sql/account/apply.sql");
    let arguments =
        format!("'{POOL}', {revision}, $change${change}$change$, gen_random_uuid(), '{{}}'");
    let ran = run(db, apply, &arguments).await;
    assert_eq!(ran.rows, 1);
    ran.pages
}

fn create(id: &str) -> pb::CreateAccountRequest {
    let account =
        pb::Account { pool_id: POOL.to_owned(), account_id: id.to_owned(), ..Default::default() };
    pb::CreateAccountRequest { account: Some(account) }
}

async fn insert(db: &mut PgConnection, sql: &'static str, id: &str) -> sqlx::Result<u64> {
    Ok(sqlx::query(sql).bind(POOL).bind(id).execute(db).await?.rows_affected())
}
