//! Failover: a standby takes over while callers are at work, and one address leads to it from then on.

use std::{collections::HashSet, time::Duration};

use holdfast::{
    domain::{id::PoolId, outcomes::Position},
    rpc::pb::{self, RedemptionState},
    store::{Store, StoreError},
};
use sqlx::{Connection as _, PgConnection};

use crate::{
    database::outages::recovers,
    support::{
        load::{Load, Seen},
        postgres::OwnPostgres,
        proxy::{
            Proxy,
            postgres::{Postgres, upstream},
        },
        wait::eventually,
        watch::Watch,
        world::{Clients, POOL, World, lease, seconds},
    },
};

const CALLERS: usize = 8;
const LIMIT: Duration = Duration::from_secs(20);

/// A world behind an address that leads to a primary, which has a synchronous standby.
struct Cluster {
    world: World,
    address: Proxy<Postgres>,
    primary: OwnPostgres,
    standby: OwnPostgres,
}

impl Cluster {
    async fn new() -> Self {
        let primary = OwnPostgres::start(&[]).await;
        let standby = primary.standby().await;
        primary.wait_for_standby().await;
        let address = Proxy::<Postgres>::before(&primary.url());
        let url = address.url(&primary.url());
        let mut world = World::with(|args| args.database_url = Some(url.into()), 1).await;
        // The one that is promoted is looked at in the end.
        world.db_url = standby.url();
        world.clients(0).await.create_accounts(2 * CALLERS).await;
        Self { world, address, primary, standby }
    }

    /// The standby takes over, and the address leads to it.
    async fn fail_over(&self) {
        self.standby.promote().await;
        self.address.lead_to(upstream(&self.standby.url()));
    }

    /// Everything of which a caller was told that it had succeeded is recorded on the new primary. That
    /// the provider credited just that is checked at the end of every world.
    async fn nothing_acknowledged_is_lost(&self, seen: &Seen) {
        let mut db = PgConnection::connect(&self.standby.url()).await.unwrap();
        let recorded: Vec<String> = sqlx::query_scalar(
            "SELECT redemption_id::text FROM redemptions WHERE state = 'SUCCEEDED'",
        )
        .fetch_all(&mut db)
        .await
        .unwrap();
        let lost: Vec<_> = seen.succeeded.iter().filter(|id| !recorded.contains(id)).collect();
        assert!(lost.is_empty(), "{lost:?}");
    }

    /// Waits until the server says that it is ready (200) or is not (503).
    async fn readiness_is(&self, status: u16) {
        let ready = format!("http://{}/readyz", self.world.server(0).admin_addr());
        eventually(LIMIT, &format!("readiness to be {status}"), async || {
            (reqwest::get(&ready).await.unwrap().status() == status).then_some(())
        })
        .await;
    }

    /// How many connections the server has to a Postgres.
    async fn connections_to(postgres: &OwnPostgres) -> i64 {
        let mut db = PgConnection::connect(&postgres.url()).await.unwrap();
        sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'holdfast'",
        )
        .fetch_one(&mut db)
        .await
        .unwrap()
    }
}

#[tokio::test]
async fn a_primary_crashes_and_its_standby_takes_over_and_nothing_acknowledged_is_lost() {
    let mut cluster = Cluster::new().await;
    let load = Load::start(&cluster.world, CALLERS).await;
    load.more(4 * CALLERS).await;
    cluster.primary.quit();
    cluster.fail_over().await;
    recovers(&load, "the standby took over").await;
    load.more(4 * CALLERS).await;
    let seen = load.stop().await;
    cluster.nothing_acknowledged_is_lost(&seen).await;
    drop(cluster.world);
}

#[tokio::test]
async fn an_old_primary_that_lives_on_read_only_is_left_though_its_connections_are_open() {
    let cluster = Cluster::new().await;
    let load = Load::start(&cluster.world, CALLERS).await;
    load.more(CALLERS).await;
    assert!(Cluster::connections_to(&cluster.primary).await > 0);
    cluster.primary.set("default_transaction_read_only", "on").await;
    load.refused().await;
    cluster.fail_over().await;
    recovers(&load, "the old primary became read-only and the standby took over").await;
    load.more(CALLERS).await;
    eventually(LIMIT, "the connections to the old primary to be closed", async || {
        (Cluster::connections_to(&cluster.primary).await == 0).then_some(())
    })
    .await;
    let seen = load.stop().await;
    cluster.nothing_acknowledged_is_lost(&seen).await;
    drop(cluster.world);
}

#[tokio::test]
async fn a_standby_that_the_address_leads_to_too_early_is_not_used_until_it_is_promoted() {
    let cluster = Cluster::new().await;
    let load = Load::start(&cluster.world, CALLERS).await;
    load.more(CALLERS).await;
    cluster.address.lead_to(upstream(&cluster.standby.url()));
    cluster.address.cut_all().await;
    load.refused().await;
    cluster.readiness_is(503).await;
    cluster.standby.promote().await;
    recovers(&load, "the standby was promoted").await;
    load.more(CALLERS).await;
    cluster.readiness_is(200).await;
    let seen = load.stop().await;
    cluster.nothing_acknowledged_is_lost(&seen).await;
    drop(cluster.world);
}

#[tokio::test]
async fn a_primary_is_gone_without_closing_and_its_connections_are_closed() {
    let mut cluster = Cluster::new().await;
    let load = Load::start(&cluster.world, CALLERS).await;
    load.more(CALLERS).await;
    // For a while the address leads nowhere, and what waits is told nothing.
    cluster.address.strand();
    cluster.address.refuse();
    cluster.primary.quit();
    cluster.readiness_is(503).await;
    cluster.fail_over().await;
    cluster.address.accept();
    recovers(&load, "the primary fell silent and the standby took over").await;
    load.more(CALLERS).await;
    let seen = load.stop().await;
    cluster.nothing_acknowledged_is_lost(&seen).await;
    drop(cluster.world);
}

#[tokio::test]
async fn nothing_is_acknowledged_while_the_standby_is_away() {
    let mut cluster = Cluster::new().await;
    cluster.world.db_url = cluster.primary.url();
    let mut clients = cluster.world.clients(0).await;
    let lease = lease(&clients.acquire(|_| {}).await.unwrap());
    let code = cluster.world.code("waits");
    cluster.standby.quit();
    let redeeming = tokio::spawn(async move { clients.redeem(&lease, &code, |_| {}).await });
    let waits = "a commit to wait for the standby";
    eventually(LIMIT, waits, async || {
        let mut db = PgConnection::connect(&cluster.primary.url()).await.unwrap();
        let waiting: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'",
        )
        .fetch_one(&mut db)
        .await
        .unwrap();
        (waiting > 0).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!redeeming.is_finished());
    cluster.standby.start_again().await;
    let redemption = redeeming.await.unwrap().unwrap().redemption.unwrap();
    assert_eq!(redemption.state(), RedemptionState::Succeeded);
    drop(cluster.world);
}

#[tokio::test]
async fn a_server_is_not_started_on_a_standby_and_says_why() {
    let primary = OwnPostgres::start(&[]).await;
    let standby = primary.standby().await;
    let store = Store::open(&standby.url().into(), 4).unwrap();
    let error = store.migrate().await.unwrap_err();
    assert!(matches!(&error, StoreError::Unavailable(why) if why.contains("standby")), "{error:?}");
}

#[tokio::test]
async fn outcomes_are_watched_through_a_failover_and_none_is_missed() {
    let mut cluster = Cluster::new().await;
    let mut clients = cluster.world.clients(0).await;
    let mut all = Watch::open(&mut clients, "").await.unwrap();
    let first = redeem_one(&cluster.world, &mut clients, "first").await;
    assert_eq!(all.outcome().await.unwrap(), first);
    let (before, load) = (all.cursor.clone(), Load::start(&cluster.world, CALLERS).await);
    load.more(4 * CALLERS).await;
    cluster.primary.quit();
    cluster.fail_over().await;
    recovers(&load, "the standby took over").await;
    load.more(4 * CALLERS).await;
    let seen = load.stop().await;
    let last = redeem_one(&cluster.world, &mut clients, "last").await;
    // The stream that was open, and one that goes on after a cursor from before.
    let mut resumed = Watch::open(&mut clients, &before).await.unwrap();
    for watch in [&mut all, &mut resumed] {
        let mut told = HashSet::new();
        let (mut eras, pool) = (HashSet::new(), PoolId::parse(POOL).unwrap());
        while !told.contains(&last.redemption_id) {
            let one = watch.outcome().await.unwrap();
            assert!(told.insert(one.redemption_id.clone()), "twice: {one:?}");
            let position = Position::of_cursor(&pool, &watch.cursor).unwrap();
            eras.insert(position.last.unwrap().era.timeline);
        }
        let missed: Vec<_> = seen.succeeded.iter().filter(|id| !told.contains(*id)).collect();
        assert!(missed.is_empty(), "{missed:?}");
        assert_eq!(eras.len(), 2, "some are from before, some from after");
    }
    drop(cluster.world);
}

async fn redeem_one(world: &World, clients: &mut Clients, name: &str) -> pb::Redemption {
    let redeemed = clients.acquire(|request| request.wait_timeout = seconds(20.0)).await.unwrap();
    let held = lease(&redeemed);
    let done = clients.redeem(&held, &world.code(name), |r| r.release_on_completion = true).await;
    done.unwrap().redemption.unwrap()
}

#[tokio::test]
async fn a_database_that_answers_and_does_not_commit_is_not_healthy() {
    let postgres = OwnPostgres::start(&[]).await;
    let settings = |args: &mut holdfast::config::ServeArgs| {
        args.database_url = Some(postgres.url().into());
    };
    let mut world = World::with(settings, 1).await;
    world.db_url = postgres.url();
    let ready = format!("http://{}/readyz", world.server(0).admin_addr());
    let is_ready = async || reqwest::get(&ready).await.unwrap().status().is_success();
    assert!(is_ready().await);
    // Commits wait for a standby, and there is none.
    postgres.set("synchronous_standby_names", "*").await;
    eventually(Duration::from_secs(20), "it is not ready", async || {
        (!is_ready().await).then_some(())
    })
    .await;
    assert!(!crate::support::logs::lines_with("does not commit").is_empty());
    postgres.set("synchronous_standby_names", "").await;
    eventually(Duration::from_secs(40), "it is ready again", async || {
        is_ready().await.then_some(())
    })
    .await;
    drop(world);
}

#[tokio::test]
async fn a_clock_that_is_behind_what_was_written_before_is_told_at_the_start() {
    let mut world = World::start().await;
    let mut db = world.sql().await;
    let told = || crate::support::logs::lines_with("the database's clock went back").len();
    let before = told();
    sqlx::query("INSERT INTO servers (server_id, beat_at) VALUES (gen_random_uuid(), now() + interval '1 h')")
        .execute(&mut db)
        .await
        .unwrap();
    world.start_server().await;
    eventually(Duration::from_secs(20), "it is told", async || (told() > before).then_some(()))
        .await;
}
