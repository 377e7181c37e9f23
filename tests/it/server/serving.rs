//! A server as a whole: its health, its stop, and what it refuses to start with.

use std::time::Duration;

use holdfast::{
    app::App,
    embedded::{Data, Options, Postgres},
    rpc::pb::{self, RedemptionState},
    simulator::faults::Fault,
};
use tonic::{Code, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::support::{
    wait::eventually,
    world::{World, lease, reason},
};

const SERVICES: [&str; 5] = [
    "",
    "holdfast.v1.RedemptionService",
    "holdfast.v1.AccountService",
    "holdfast.v1.PoolService",
    "holdfast.v1.ProviderService",
];

async fn health_client(url: &str) -> HealthClient<Channel> {
    HealthClient::new(Channel::from_shared(url.to_owned()).unwrap().connect().await.unwrap())
}

async fn health(url: &str, service: &str) -> ServingStatus {
    let mut client = health_client(url).await;
    let request = HealthCheckRequest { service: service.to_owned() };
    client.check(request).await.unwrap().into_inner().status()
}

async fn ready(app: &App) -> u16 {
    let url = format!("http://{}/readyz", app.admin_addr());
    reqwest::get(url).await.unwrap().status().as_u16()
}

#[tokio::test]
async fn health_is_told_overall_and_for_each_service() {
    let world = World::start().await;
    let url = format!("http://{}", world.server(0).addr());
    for service in SERVICES {
        assert_eq!(health(&url, service).await, ServingStatus::Serving, "{service:?}");
    }
    let mut client = health_client(&url).await;
    let unknown = HealthCheckRequest { service: "nothing".to_owned() };
    assert_eq!(client.check(unknown.clone()).await.unwrap_err().code(), Code::NotFound);
    let mut watched = client.watch(unknown).await.unwrap().into_inner();
    let told = watched.message().await.unwrap().unwrap();
    assert_eq!(told.status(), ServingStatus::ServiceUnknown);
    // Longer than until the server asks again.
    let more = tokio::time::timeout(Duration::from_millis(1500), watched.message()).await;
    assert!(more.is_err(), "the stream stays open and says nothing twice, not {more:?}");
    let channel = Channel::from_shared(url.clone()).unwrap().connect().await.unwrap();
    let mut lists = holdfast::rpc::health::health_client::HealthClient::new(channel);
    let listed = lists.list(holdfast::rpc::health::HealthListRequest {}).await.unwrap();
    let statuses = listed.into_inner().statuses;
    for service in SERVICES {
        assert_eq!(statuses[service].status, ServingStatus::Serving as i32, "{service:?}");
    }
    assert_eq!(ready(world.server(0)).await, 200);
    let admin = world.server(0).admin_addr();
    let alive = reqwest::get(format!("http://{admin}/livez")).await.unwrap();
    assert_eq!(alive.status().as_u16(), 200);
    let metrics = reqwest::get(format!("http://{admin}/metrics")).await.unwrap();
    assert!(metrics.text().await.unwrap().contains("holdfast_call_seconds"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_goes_away_is_told_and_its_return_too() {
    // A Postgres of its own, to be stopped and started under the server.
    let folder = tempfile::tempdir().unwrap();
    let kept = || Options::new(Data::Kept(folder.path().join("pg")));
    let postgres = Postgres::start(kept()).await.unwrap();
    let key = folder.path().join(holdfast::secret::FILE_NAME);
    holdfast::secret::SecretKeys::create_beside(folder.path()).unwrap();
    let world = World::start().await;
    let mut args = world.args().clone();
    args.database_url = Some(postgres.url(holdfast::embedded::DATABASE).into());
    args.secret_key_file = Some(key);
    let app = App::start(&args).await.unwrap();
    let url = format!("http://{}", app.addr());
    let mut clients = crate::support::world::Clients::connect(&url).await;
    clients.create_pool("pool").await;
    clients.create_account("a", |_| {}).await;
    assert_eq!(health(&url, "").await, ServingStatus::Serving);

    postgres.stop().await.unwrap();
    eventually(Duration::from_secs(10), "health says NOT_SERVING", async || {
        (health(&url, SERVICES[1]).await == ServingStatus::NotServing).then_some(())
    })
    .await;
    assert_eq!(ready(&app).await, 503);
    let error = clients.acquire(|_| {}).await.unwrap_err();
    assert_eq!((error.code(), &*reason(&error)), (Code::Unavailable, "DATABASE_UNAVAILABLE"));

    // Back, in another place: its socket has moved, as after a failover to another host. The server
    // is told the old place, so a new one takes over the data.
    let postgres = Postgres::start(kept()).await.unwrap();
    args.database_url = Some(postgres.url(holdfast::embedded::DATABASE).into());
    let successor = App::start(&args).await.unwrap();
    let url = format!("http://{}", successor.addr());
    assert_eq!(health(&url, "").await, ServingStatus::Serving);
    let mut clients = crate::support::world::Clients::connect(&url).await;
    clients.acquire(|_| {}).await.unwrap();
    app.stop().await.unwrap();
    successor.stop().await.unwrap();
    postgres.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_says_so_first_and_finishes_what_it_has() {
    let mut world = World::with(|args| args.drain_delay = Duration::from_secs(1), 2).await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(3).await;
    let url = format!("http://{}", world.server(0).addr());
    let held = clients.acquire(|_| {}).await.unwrap();
    let code = world.code("stopping");
    world.fault(&code, &[Fault::Stall]);
    let redeeming = tokio::spawn({
        let (mut clients, held) = (clients.clone(), lease(&held));
        async move { clients.redeem(&held, &code, |r| r.release_on_completion = true).await }
    });
    eventually(Duration::from_secs(5), "the redemption is begun", async || {
        let account = clients.account(&lease(&held).account_id).await;
        (!account.open_redemption_id.is_empty()).then_some(())
    })
    .await;

    let app = world.take_server(0);
    app.stopper().cancel();
    eventually(Duration::from_secs(1), "health says NOT_SERVING", async || {
        (health(&url, "").await == ServingStatus::NotServing).then_some(())
    })
    .await;
    // During the drain delay calls are still taken; after it they are refused.
    clients.acquire(|_| {}).await.unwrap();
    let refused =
        eventually(Duration::from_secs(5), "new calls are refused", async || {
            match clients.acquire(|_| {}).await {
                Ok(acquired) => {
                    clients.release(&lease(&acquired)).await.ok();
                    None
                }
                Err(error) => Some(error),
            }
        })
        .await;
    // By the server in words, or by a connection that is closing.
    assert!(matches!(refused.code(), Code::Unavailable | Code::Cancelled), "{refused:?}");

    let reply = redeeming.await.unwrap().unwrap();
    assert_eq!(reply.redemption.unwrap().state(), RedemptionState::InDoubt, "answered to the end");
    app.stopped().await.unwrap();
}

#[tokio::test]
async fn those_who_wait_for_an_account_are_told_that_the_server_stops() {
    let mut world = World::with(|_| {}, 2).await;
    let mut clients = world.clients(0).await;
    clients.create_pool("stopping").await;
    clients.create_account("only", |account| account.pool_id = "stopping".into()).await;
    clients.acquire(|r| r.pool_id = "stopping".into()).await.unwrap();
    let waiting = tokio::spawn({
        let mut clients = clients.clone();
        async move {
            let wait = Duration::from_secs(60).try_into().ok();
            clients
                .acquire(|r| {
                    r.pool_id = "stopping".into();
                    r.wait_timeout = wait;
                })
                .await
        }
    });
    world.callers_wait(0, "stopping", 1).await;
    world.take_server(0).stop().await.unwrap();
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!((error.code(), &*reason(&error)), (Code::Unavailable, "SHUTTING_DOWN"));
}

#[tokio::test]
async fn a_wrong_or_missing_key_is_refused_at_start() {
    let world = World::start().await;
    let folder = tempfile::tempdir().unwrap();
    holdfast::secret::SecretKeys::create_beside(folder.path()).unwrap();
    let mut args = world.args().clone();
    args.secret_key_file = Some(folder.path().join(holdfast::secret::FILE_NAME));
    let wrong = App::start(&args).await.unwrap_err();
    assert!(format!("{wrong:#}").contains("the secret key 1 is not the one"), "{wrong:#}");
    args.secret_key_file = None;
    let missing = App::start(&args).await.unwrap_err();
    assert!(format!("{missing:#}").contains("HOLDFAST_SECRET_KEY_FILE"), "{missing:#}");
}

#[tokio::test]
async fn settings_that_contradict_each_other_are_all_named() {
    let world = World::start().await;
    let mut args = world.args().clone();
    args.provider.timeout = Duration::from_secs(60);
    args.provider.not_after = Duration::from_secs(1);
    args.sweep_interval = Duration::ZERO;
    let error = format!("{:#}", App::start(&args).await.unwrap_err());
    for name in [
        "HOLDFAST_SWEEP_INTERVAL",
        "HOLDFAST_PROVIDER_TIMEOUT (1m) must be shorter",
        "HOLDFAST_PROVIDER_SEND_WINDOW (4s) must be shorter",
    ] {
        assert!(error.contains(name), "{name} is not in {error}");
    }
}

#[tokio::test]
async fn servers_on_one_database_share_everything() {
    let world = World::with(|_| {}, 2).await;
    let mut here = world.clients(0).await;
    let mut there = world.clients(1).await;
    here.create_account("a", |_| {}).await;
    let held = here.acquire(|_| {}).await.unwrap();
    let code = world.code("shared");
    there.redeem(&lease(&held), &code, |_| {}).await.unwrap();
    let released = there.release(&lease(&held)).await.unwrap();
    assert_eq!(released.status(), pb::AccountStatus::Processing);
    let next = there.acquire(|_| {}).await.unwrap();
    assert_eq!(lease(&next).fencing_token, 2);
}
