//! Outages: the database goes away and comes back, or is short of something, while callers are at work.

use std::time::{Duration, Instant};

use holdfast::{
    config::ServeArgs,
    domain::id::PoolId,
    rpc::pb::{AccountStatus, GetAccountRequest, RedemptionState},
    simulator::faults::{self as simulator, Faults},
    store::Store,
};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use crate::support::{
    load::Load,
    postgres::OwnPostgres,
    proxy::{Proxy, postgres::Postgres},
    wait::eventually,
    world::{POOL, World, fresh_database, lease, reason, seconds},
};

const CALLERS: usize = 8;
/// Recovery is to take two seconds. A machine that runs all tests at once may be slower.
const RECOVERY: Duration = Duration::from_secs(10);
const LIMIT: Duration = Duration::from_secs(20);

/// A world on a Postgres of its own, with accounts for [`CALLERS`].
pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) postgres: OwnPostgres,
}

impl Stage {
    async fn new() -> Self {
        Self::on(OwnPostgres::start(&[]).await, |_| {}).await
    }

    /// With settings of the server.
    pub(crate) async fn on(postgres: OwnPostgres, change: impl FnOnce(&mut ServeArgs)) -> Self {
        let settings = |args: &mut ServeArgs| {
            args.database_url = Some(postgres.url().into());
            change(args);
        };
        let mut world = World::with(settings, 1).await;
        // What the world checks at its end is checked there.
        world.db_url = postgres.url();
        world.clients(0).await.create_accounts(2 * CALLERS).await;
        Self { world, postgres }
    }
}

/// Waits for the first cycle after the database is back, and tells how long it took.
#[allow(clippy::print_stdout, reason = "a figure, to be read by who runs the test")]
pub(crate) async fn recovers(load: &Load, what: &str) {
    let took = load.first_cycle_after(Instant::now()).await;
    println!("{what}: a cycle went through {} ms later", took.as_millis());
    assert!(took < RECOVERY, "{what}: {took:?}");
}

#[tokio::test]
async fn postgres_stops_at_once_and_starts_again_while_callers_work() {
    let Stage { world, mut postgres } = Stage::new().await;
    let load = Load::start(&world, CALLERS).await;
    // Away for a moment: callers wait. Away for longer: they are told.
    for away in [false, true] {
        load.more(CALLERS).await;
        postgres.quit();
        if away {
            load.refused().await;
        }
        postgres.start_again().await;
        recovers(&load, "Postgres stopped and started").await;
        load.more(2 * CALLERS).await;
    }
    load.stop().await;
    drop(world);
}

#[tokio::test]
async fn connections_fall_silent_again_and_again_and_none_is_missed_in_the_end() {
    let postgres = OwnPostgres::start(&[]).await;
    let proxy = Proxy::<Postgres>::before(&postgres.url());
    let settings = |args: &mut ServeArgs| {
        args.database_url = Some(proxy.url(&postgres.url()).into());
        args.database_connections = 4;
    };
    let mut world = World::with(settings, 1).await;
    world.db_url = postgres.url();
    world.clients(0).await.create_accounts(2 * CALLERS).await;
    let load = Load::start(&world, CALLERS).await;
    for _ in 0..3 {
        load.more(CALLERS).await;
        proxy.strand();
        recovers(&load, "all connections fell silent").await;
    }
    load.more(CALLERS).await;
    load.stop().await;
    drop(world);
}

#[tokio::test]
async fn backends_are_killed_in_the_middle_of_everything() {
    let Stage { world, postgres } = Stage::new().await;
    let load = Load::start(&world, CALLERS).await;
    for _ in 0..10 {
        load.more(3).await;
        assert!(postgres.kill_backends().await > 0);
    }
    load.more(CALLERS).await;
    load.stop().await;
    drop(world);
}

#[tokio::test]
async fn other_programs_hold_all_of_postgres_s_connections() {
    let Stage { world, postgres } =
        Stage::on(OwnPostgres::start(&["max_connections=12"]).await, |_| {}).await;
    let load = Load::start(&world, CALLERS).await;
    load.more(1).await;
    // The server's own are cut until other programs have them all.
    let mut other_programs: Vec<PgConnection> = Vec::new();
    eventually(LIMIT, "other programs to have all connections", async || {
        match PgConnection::connect(&postgres.url()).await {
            Ok(other_program) => other_programs.push(other_program),
            Err(error) => {
                let code = error.as_database_error().unwrap().code().unwrap().into_owned();
                assert_eq!(code, "53300");
            }
        }
        let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
             WHERE application_name = 'holdfast'";
        let cut: i64 = sqlx::query_scalar(cut).fetch_one(&mut other_programs[0]).await.unwrap();
        (cut == 0 && other_programs.len() == 12).then_some(())
    })
    .await;
    load.refused().await;
    drop(other_programs);
    recovers(&load, "connections were to be had again").await;
    load.more(CALLERS).await;
    load.stop().await;
    drop(world);
}

#[tokio::test]
async fn all_of_the_server_s_own_connections_are_busy() {
    let stage = OwnPostgres::start(&[]).await;
    let Stage { world, postgres } = Stage::on(stage, |args| args.database_connections = 4).await;
    let load = Load::start(&world, CALLERS).await;
    load.more(1).await;
    // Nobody gets at an account, so every connection waits, and is let go after two seconds at most.
    let mut other_program = PgConnection::connect(&postgres.url()).await.unwrap();
    other_program.execute("BEGIN; LOCK TABLE accounts IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let error = world
        .clients(0)
        .await
        .accounts
        .get_account(GetAccountRequest { pool_id: POOL.to_owned(), account_id: "a-000".to_owned() })
        .await
        .unwrap_err();
    assert_eq!(reason(&error), "DATABASE_UNAVAILABLE");
    other_program.execute("ROLLBACK").await.unwrap();
    recovers(&load, "the table was let go").await;
    load.more(CALLERS).await;
    load.stop().await;
    drop(world);
}

/// Opens a transaction that locks rows, and keeps it open.
async fn hold(postgres: &OwnPostgres, rows: &str) -> PgConnection {
    let mut other_program = PgConnection::connect(&postgres.url()).await.unwrap();
    let lock = format!("BEGIN; SELECT FROM {rows} FOR UPDATE");
    other_program.execute(AssertSqlSafe(lock)).await.unwrap();
    other_program
}

#[tokio::test]
async fn another_transaction_holds_the_row_under_which_a_redemption_is_to_be_begun() {
    let Stage { world, postgres } = Stage::new().await;
    let mut clients = world.clients(0).await;
    let lease = lease(&clients.acquire(|_| {}).await.unwrap());
    let row = format!("accounts WHERE account_id = '{}'", lease.account_id);
    let other_program = hold(&postgres, &row).await;
    let error = clients.redeem(&lease, &world.code("held"), |_| {}).await.unwrap_err();
    assert_eq!(reason(&error), "DATABASE_UNAVAILABLE");
    drop(other_program);
    let redeemed = clients.redeem(&lease, &world.code("held"), |_| {}).await.unwrap();
    assert!(!redeemed.replayed, "nothing was begun before");
    drop(world);
}

#[tokio::test]
async fn another_transaction_holds_the_row_of_a_redemption_that_is_to_be_settled() {
    let Stage { world, postgres } = Stage::new().await;
    let mut clients = world.clients(0).await;
    let lease = lease(&clients.acquire(|_| {}).await.unwrap());
    let code = world.code("held");
    // The provider takes its time, in which the row is taken.
    world.set_faults(Faults {
        rules: Faults::of_card(&code, &[simulator::Fault::Slow202]),
        processing_time: Duration::from_secs(1),
        ..Faults::default()
    });
    let mut caller = clients.clone();
    let redeeming = tokio::spawn(async move { caller.redeem(&lease, &code, |_| {}).await });
    let mut sql = world.sql().await;
    let begun = "the redemption to be begun";
    eventually(LIMIT, begun, async || {
        let open = "SELECT count(*) FROM redemptions WHERE state = 'SUBMITTED'";
        let open: i64 = sqlx::query_scalar(open).fetch_one(&mut sql).await.unwrap();
        (open == 1).then_some(())
    })
    .await;
    let other_program = hold(&postgres, "redemptions").await;
    let blocked = "the settlement to wait for the other program";
    eventually(LIMIT, blocked, async || postgres.log().contains("lock timeout").then_some(()))
        .await;
    assert!(!redeeming.is_finished(), "what is known is not given up");
    drop(other_program);
    let redemption = redeeming.await.unwrap().unwrap().redemption.unwrap();
    assert_eq!(redemption.state(), RedemptionState::Succeeded);
    drop(world);
}

#[tokio::test]
async fn another_transaction_holds_the_row_of_a_redemption_in_doubt_and_others_are_claimed() {
    let Stage { world, postgres } = Stage::new().await;
    let mut clients = world.clients(0).await;
    let codes = [world.code("held"), world.code("free")];
    let lost = |code: &String| Faults::of_card(code, &[simulator::Fault::ApplyThenDrop]);
    world.set_faults(Faults { rules: codes.iter().flat_map(lost).collect(), ..Faults::default() });
    let mut ids = Vec::new();
    let mut other_programs = Vec::new();
    for code in &codes {
        let lease = lease(&clients.acquire(|_| {}).await.unwrap());
        let redemption = clients.redeem(&lease, code, |_| {}).await.unwrap().redemption.unwrap();
        assert_eq!(redemption.state(), RedemptionState::InDoubt);
        if other_programs.is_empty() {
            let row = format!("redemptions WHERE redemption_id = '{}'", redemption.redemption_id);
            other_programs.push(hold(&postgres, &row).await);
        }
        ids.push(redemption.redemption_id);
    }
    let mut settled = async |id: &str, what: &str| {
        eventually(LIMIT, what, async || {
            let redemption = clients.redemption(id).await;
            (redemption.state() == RedemptionState::Succeeded).then_some(())
        })
        .await;
    };
    settled(&ids[1], "the free one to be settled").await;
    other_programs.clear();
    settled(&ids[0], "the other one to be settled").await;
    drop(world);
}

#[tokio::test]
async fn another_transaction_holds_the_row_of_a_lease_that_has_run_out_and_others_are_ended() {
    let Stage { world, postgres } = Stage::new().await;
    let mut clients = world.clients(0).await;
    let mut short = async || {
        let acquired = clients.acquire(|request| request.lease_duration = seconds(1.0)).await;
        lease(&acquired.unwrap()).account_id
    };
    let (held, free) = (short().await, short().await);
    let other_program = hold(&postgres, &format!("accounts WHERE account_id = '{held}'")).await;
    let mut ended = async |account_id: &str, what: &str| {
        eventually(LIMIT, what, async || {
            (clients.status_of(account_id).await == AccountStatus::Waiting).then_some(())
        })
        .await;
    };
    ended(&free, "the free one to end").await;
    drop(other_program);
    ended(&held, "the other one to end").await;
    drop(world);
}

#[tokio::test]
async fn the_disk_of_postgres_is_full() {
    let postgres = OwnPostgres::on_small_disk(150).await;
    let Stage { world, mut postgres } = Stage::on(postgres, |_| {}).await;
    let load = Load::start(&world, CALLERS).await;
    load.more(CALLERS).await;
    postgres.fill_disk();
    let full = "Postgres to find its disk full";
    eventually(LIMIT, full, async || {
        postgres.log().contains("No space left on device").then_some(())
    })
    .await;
    // It needs space for its log of changes too: it gives up then.
    eventually(LIMIT, "Postgres to panic", async || {
        if let Ok(mut other_program) = PgConnection::connect(&postgres.url()).await {
            let _ = other_program.execute("SELECT pg_switch_wal()").await;
        }
        postgres.log().contains("PANIC").then_some(())
    })
    .await;
    postgres.free_disk();
    postgres.quit();
    postgres.start_again().await;
    recovers(&load, "the disk had space again").await;
    load.more(CALLERS).await;
    load.stop().await;
    drop(world);
}

#[tokio::test]
async fn every_connection_is_opened_with_its_limits() {
    let database = fresh_database().await;
    let proxy = Proxy::<Postgres>::before(&database.url);
    // What is asked of every new connection is asked for these too.
    let limits = [
        ("statement_timeout", "15s"),
        ("lock_timeout", "2s"),
        ("idle_in_transaction_session_timeout", "15s"),
    ];
    let asked = |limits: &[(&str, &str)]| {
        let limits = limits
            .iter()
            .map(|(name, value)| format!(" AND current_setting('{name}') = '{value}'"));
        format!("= 'off'{}", limits.collect::<String>())
    };
    let ping = "-- Whether the database answers";
    let asked_for = proxy.rewrite(ping, "= 'off'", &asked(&limits));
    let store = Store::open(&proxy.url(&database.url).into(), 4).unwrap();
    store.ping().await.unwrap();
    let pool_id = PoolId::parse("none").unwrap();
    let reads = (0..20).map(|_| store.get_pool(&pool_id));
    for pool in futures_util::future::join_all(reads).await {
        assert!(pool.unwrap().is_none());
    }
    assert_eq!(proxy.connections(), 5, "four, and the one of health");
    assert_eq!(asked_for.times(), 5);
    store.close().await;

    // And a connection without them would be found.
    let proxy = Proxy::<Postgres>::before(&database.url);
    let other = proxy.rewrite(ping, "= 'off'", &asked(&[("lock_timeout", "3s")]));
    let store = Store::open(&proxy.url(&database.url).into(), 4).unwrap();
    store.ping().await.unwrap_err();
    assert_eq!(other.times(), 1);
}

#[tokio::test]
async fn statements_are_planned_anew_while_a_pool_is_filled() {
    let world = World::start().await;
    let mut db = world.sql().await;
    // Nobody else counts.
    let alone = "ALTER TABLE accounts SET (autovacuum_enabled = off)";
    sqlx::raw_sql(alone).execute(&mut db).await.unwrap();
    for (from, to) in [(1, 3000), (3001, 4500)] {
        sqlx::query(
            "INSERT INTO accounts (pool_id, account_id)
             SELECT $1, n::text FROM generate_series($2::int, $3::int) n",
        )
        .bind(POOL)
        .bind(from)
        .bind(to)
        .execute(&mut db)
        .await
        .unwrap();
        eventually(LIMIT, "the accounts are counted", async || {
            let counted = "SELECT reltuples::int FROM pg_class WHERE oid = 'accounts'::regclass";
            let counted: i32 = sqlx::query_scalar(counted).fetch_one(&mut db).await.unwrap();
            (to - counted < 500).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn it_is_seen_of_a_table_of_any_size_whether_it_has_grown() {
    let database = fresh_database().await;
    let mut db = PgConnection::connect(&database.url).await.unwrap();
    let sql = include_str!("../../../src/store/sql/pg/grown_tables.sql");
    // 16 TiB, the largest that a table may be; known to be so large, and known to be empty.
    for (pages, grown) in [(i32::MAX, false), (0, false)] {
        sqlx::query(
            "UPDATE pg_class SET relpages = $1 WHERE relname IN ('accounts', 'redemptions')",
        )
        .bind(pages)
        .execute(&mut db)
        .await
        .unwrap();
        let row: (i64, bool) = sqlx::query_as(sql).fetch_one(&mut db).await.unwrap();
        assert_eq!(row, (2 * i64::from(pages), grown));
    }
    database.drop_database().await;
}
