//! Limits of a provider, over three servers: how many calls it gets at a time and in a time, that it gets none while it
//! asks for a pause, how many refusals it may tell, and what happens while it fails as a whole.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::{get as on_get, post},
};
use holdfast::rpc::pb::{self, batch_redeem_response::Message as Told};
use serde_json::{Value, json};
use sqlx::Row as _;
use tokio::{task::JoinSet, time::Instant};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::apply;
use crate::{
    provider::client::serve,
    support::{
        batch::{Session, item, opening, said_item},
        checks,
        wait::eventually,
        world::{Clients, World, eur, lease, metadata, reason, seconds},
    },
};

pub(super) const POOL: &str = "limited";
const SERVERS: usize = 3;

/// What the provider does with a card.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Works,
    /// It knows no code.
    KnowsNothing,
    /// It takes no call, and says for how long.
    IsBusy,
    /// It works, and says that this was the last call for a while.
    HasUsedUpItsQuota,
    Fails,
}

/// A provider that remembers when it was called.
pub(super) struct Fake {
    seen: Mutex<Seen>,
}

struct Seen {
    mode: Mode,
    takes: Duration,
    calls: Vec<Instant>,
    under_way: usize,
    most_under_way: usize,
}

impl Fake {
    async fn start() -> (Arc<Self>, String) {
        let (fake, app) = Self::make();
        (fake, serve(app).await)
    }

    /// One that listens nowhere yet.
    pub(super) fn make() -> (Arc<Self>, Router) {
        let seen = Seen {
            mode: Mode::Works,
            takes: Duration::ZERO,
            calls: Vec::new(),
            under_way: 0,
            most_under_way: 0,
        };
        let fake = Arc::new(Self { seen: Mutex::new(seen) });
        let app = Router::new()
            .route("/redeem", post(redeem))
            .route("/redeem/{key}", on_get(look_up))
            .with_state(Arc::clone(&fake));
        (fake, app)
    }

    pub(super) fn set(&self, mode: Mode) {
        self.seen.lock().unwrap().mode = mode;
    }

    fn calls(&self) -> Vec<Instant> {
        self.seen.lock().unwrap().calls.clone()
    }
}

async fn redeem(State(fake): State<Arc<Fake>>, body: String) -> Response {
    let body: Value = serde_json::from_str(&body).unwrap();
    let (mode, takes) = {
        let mut seen = fake.seen.lock().unwrap();
        seen.calls.push(Instant::now());
        seen.under_way += 1;
        seen.most_under_way = seen.most_under_way.max(seen.under_way);
        (seen.mode, seen.takes)
    };
    tokio::time::sleep(takes).await;
    fake.seen.lock().unwrap().under_way -= 1;
    let done = json!({"key": body["key"], "id": "r", "state": "done", "amount": 1000}).to_string();
    match mode {
        Mode::Works => (StatusCode::OK, done).into_response(),
        Mode::HasUsedUpItsQuota => {
            fake.set(Mode::Works);
            (StatusCode::OK, [("x-left", "0"), ("x-reset", "2")], done).into_response()
        }
        Mode::IsBusy => {
            fake.set(Mode::Works);
            let busy = json!({"busy": true}).to_string();
            (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "2")], busy).into_response()
        }
        Mode::KnowsNothing => {
            let unknown = json!({"key": body["key"], "error": "CODE_UNKNOWN"}).to_string();
            (StatusCode::UNPROCESSABLE_ENTITY, unknown).into_response()
        }
        Mode::Fails => (StatusCode::INTERNAL_SERVER_ERROR, "oops").into_response(),
    }
}

/// What fails leaves nothing done.
async fn look_up(State(fake): State<Arc<Fake>>, Path(key): Path<String>) -> Response {
    let mode = fake.seen.lock().unwrap().mode;
    match mode {
        Mode::Fails => (StatusCode::INTERNAL_SERVER_ERROR, "oops").into_response(),
        _ => {
            let failed = json!({"key": key, "state": "failed", "error": "NOT_DONE"}).to_string();
            (StatusCode::OK, failed).into_response()
        }
    }
}

pub(super) fn profile(base: &str, limits: &str) -> String {
    format!(
        r#"id = "limited"
version = 1
[http]
base = "{base}"
timeout = "5s"
[identity]
key = "uuid"
dedup = "replay"
window = "24h"
[times]
max_processing = "10s"
visibility = "100ms"
send_window = "20s"
[limits]
{limits}
[op.send]
method = "POST"
path = "/redeem"
body = {{ key = "{{{{ key }}}}", code = "{{{{ code }}}}" }}
take = {{ key = "/key", ref = "/id", amount = {{ at = "/amount", unit = "minor" }}, failure = "/error" }}
[[op.send.rule]]
when = {{ status = [200], eq = {{ "/state" = "done" }} }}
then = "succeeded"
[[op.send.rule]]
when = {{ status = [422], has = ["/key"] }}
then = {{ failed = {{ spent = false }} }}
[[op.send.rule]]
when = {{ status = [429], eq = {{ "/busy" = true }} }}
then = "not_executed"
[op.look_up]
path = "/redeem/{{{{ key }}}}"
take = {{ key = "/key", ref = "/id", amount = {{ at = "/amount", unit = "minor" }}, failure = "/error" }}
[[op.look_up.rule]]
when = {{ status = [200], eq = {{ "/state" = "failed" }} }}
then = {{ failed = {{ spent = false }} }}
[[case]]
op = "send"
status = 500
body = "oops"
then = "in_doubt"
"#
    )
}

/// Three servers, a provider with limits, and a pool of it.
pub(super) async fn world(limits: &str, accounts: usize) -> (World, Arc<Fake>, Vec<Clients>) {
    let world = World::with(|_| {}, SERVERS).await;
    let (fake, base) = Fake::start().await;
    let mut clients = Vec::new();
    for server in 0..SERVERS {
        clients.push(world.clients(server).await);
    }
    let first = &mut clients[0];
    apply(first, &profile(&base, limits)).await.unwrap();
    let pool = pb::Pool {
        pool_id: POOL.to_owned(),
        provider_id: "limited".to_owned(),
        currency_code: "EUR".to_owned(),
        ..Default::default()
    };
    first.pools.create_pool(pb::CreatePoolRequest { pool: Some(pool) }).await.unwrap();
    for number in 0..accounts {
        let account = pb::Account {
            pool_id: POOL.to_owned(),
            account_id: format!("a{number}"),
            ..Default::default()
        };
        let request = pb::CreateAccountRequest { account: Some(account) };
        first.accounts.create_account(request).await.unwrap();
    }
    (world, fake, clients)
}

async fn acquire(clients: &mut Clients) -> Result<pb::LeaseRef, Status> {
    let acquired = clients.acquire(|request| {
        request.pool_id = POOL.to_owned();
        request.wait_timeout = seconds(10.0);
    });
    acquired.await.map(|acquired| lease(&acquired))
}

pub(super) async fn redeem_one(
    mut clients: Clients,
    code: String,
) -> Result<pb::Redemption, Status> {
    let lease = acquire(&mut clients).await?;
    let redeemed = clients.redeem(&lease, &code, |request| {
        request.release_on_completion = true;
    });
    let redeemed = redeemed.await;
    if redeemed.is_err() {
        let _ = clients.release(&lease).await;
    }
    Ok(redeemed?.redemption.unwrap())
}

/// Redeems so many cards over all servers.
pub(super) async fn redeem_all(
    world: &World,
    clients: &[Clients],
    count: usize,
    name: &str,
) -> Vec<Result<pb::Redemption, Status>> {
    let mut redeeming = JoinSet::new();
    for number in 0..count {
        let code = world.code(&format!("{name}-{number}"));
        redeeming.spawn(redeem_one(clients[number % clients.len()].clone(), code));
    }
    redeeming.join_all().await
}

fn all_succeeded(redeemed: &[Result<pb::Redemption, Status>]) {
    for redemption in redeemed {
        let redemption = redemption.as_ref().unwrap();
        assert_eq!(redemption.state(), pb::RedemptionState::Succeeded, "{redemption:?}");
    }
}

#[tokio::test]
async fn no_more_calls_are_under_way_than_the_profile_allows_to_all_servers_together() {
    let (world, fake, clients) = world("in_flight = 4", 24).await;
    fake.seen.lock().unwrap().takes = Duration::from_millis(150);
    all_succeeded(&redeem_all(&world, &clients, 24, "in-flight").await);
    let most = fake.seen.lock().unwrap().most_under_way;
    assert!((2..=4).contains(&most), "{most} calls were under way at once");
}

#[tokio::test]
async fn a_server_that_dies_keeps_no_place_for_ever() {
    let (world, _fake, clients) = world("in_flight = 1", 2).await;
    all_succeeded(&redeem_all(&world, &clients[..1], 1, "before").await);
    let mut db = world.sql().await;
    // As a server leaves it that is killed in the middle of a call.
    let taken = "UPDATE provider_slots SET taken = taken + 1, free_at = now() + interval '2 s'";
    let place = eventually(Duration::from_secs(5), "the place is free", async || {
        let free = sqlx::query("SELECT 1 FROM provider_slots WHERE free_at <= now()");
        free.fetch_optional(&mut db).await.unwrap()
    });
    place.await;
    sqlx::query(taken).execute(&mut db).await.unwrap();
    all_succeeded(&redeem_all(&world, &clients[1..2], 1, "after").await);
}

#[tokio::test]
async fn a_server_that_stops_lets_those_go_who_wait_for_a_place() {
    let (mut world, _fake, clients) = world("in_flight = 1", 2).await;
    all_succeeded(&redeem_all(&world, &clients[..1], 1, "before").await);
    let mut db = world.sql().await;
    let taken = "UPDATE provider_slots SET taken = taken + 1, free_at = now() + interval '1 h'";
    let place = eventually(Duration::from_secs(5), "the place is free", async || {
        let free = sqlx::query("SELECT 1 FROM provider_slots WHERE free_at <= now()");
        free.fetch_optional(&mut db).await.unwrap()
    });
    place.await;
    sqlx::query(taken).execute(&mut db).await.unwrap();
    let code = world.code("waits");
    let waiting = tokio::spawn(redeem_one(clients[0].clone(), code));
    eventually(Duration::from_secs(10), "it waits for a place", async || {
        let asks = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database()
                    AND query LIKE '-- Of no pool: takes a free place%' AND query_start > now() - interval '1 s'";
        sqlx::query(asks).fetch_optional(&mut db).await.unwrap()
    })
    .await;
    world.take_server(0).stop().await.unwrap();
    let refused = waiting.await.unwrap().unwrap_err();
    assert_eq!((refused.code(), &*reason(&refused)), (Code::Unavailable, "SHUTTING_DOWN"));
    assert_eq!(metadata(&refused, "begun"), "0");
    world.start_server().await;
}

#[tokio::test]
async fn calls_come_no_faster_than_the_rate_of_all_servers_together() {
    let (world, fake, clients) = world("rate = \"20/s\"\nburst = 5", 40).await;
    // From before the first: a call that was allowed may reach the provider late, and the next ones in time.
    let begun = Instant::now();
    all_succeeded(&redeem_all(&world, &clients, 40, "rate").await);
    let took = *fake.calls().last().unwrap() - begun;
    // After the burst, one every 50 ms.
    assert!(took >= Duration::from_millis(50 * (40 - 5 - 1)), "{took:?} for 40 calls");
}

/// Has one call tell the provider's wish for a pause, and asserts that no server calls before it is over.
async fn holds_back_all(mode: Mode) {
    let limits =
        "rate = \"1000/s\"\nburst = 100\nquota = { remaining = \"x-left\", reset = \"x-reset\" }";
    let (world, fake, clients) = world(limits, 10).await;
    fake.set(mode);
    let code = world.code("first");
    let first = tokio::spawn(redeem_one(clients[0].clone(), code));
    let mut db = world.sql().await;
    let told = eventually(Duration::from_secs(10), "the servers are told", async || {
        let held = sqlx::query("SELECT 1 FROM provider_limits WHERE held_until > now()");
        held.fetch_optional(&mut db).await.unwrap()
    });
    told.await;
    let called = fake.calls()[0];
    all_succeeded(&redeem_all(&world, &clients, 6, "held").await);
    all_succeeded(&[first.await.unwrap()]);
    let next = fake.calls()[1] - called;
    assert!(next >= Duration::from_millis(1900), "called again after {next:?}");
}

#[tokio::test]
async fn a_retry_after_holds_back_the_calls_of_all_servers() {
    holds_back_all(Mode::IsBusy).await;
}

#[tokio::test]
async fn a_quota_that_is_used_up_holds_back_the_calls_of_all_servers() {
    holds_back_all(Mode::HasUsedUpItsQuota).await;
}

#[tokio::test]
async fn a_brake_lets_no_more_refusals_be_told_than_the_provider_bears() {
    let brake = "brake = { on = [\"CODE_UNKNOWN\"], count = 3, per = \"1h\" }";
    let (world, fake, mut clients) = world(brake, 20).await;
    all_succeeded(&redeem_all(&world, &clients, 8, "good").await);
    fake.set(Mode::KnowsNothing);
    let redeemed = redeem_all(&world, &clients, 15, "unknown").await;
    let told = redeemed.iter().filter_map(|redeemed| redeemed.as_ref().ok());
    assert!(told.clone().all(|told| told.failure.as_ref().unwrap().reason == "CODE_UNKNOWN"));
    assert_eq!(told.count(), 3);
    for refused in redeemed.iter().filter_map(|redeemed| redeemed.as_ref().err()) {
        assert_eq!(
            (refused.code(), &*reason(refused)),
            (Code::Unavailable, "PROVIDER_UNAVAILABLE")
        );
    }
    assert_eq!(fake.calls().len(), 8 + 3, "no other call was made");
    // The servers that were refused give out no account either, and say when they will.
    let refused = acquire(&mut clients[0]).await.unwrap_err();
    assert_eq!(reason(&refused), "PROVIDER_UNAVAILABLE");
    let after = refused.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert!(after > Duration::from_secs(3000), "{after:?}");
    assert!(refused.message().contains("brake"), "{refused:?}");
}

#[tokio::test]
async fn a_provider_that_fails_as_a_whole_pauses_its_pools_and_resumes_by_itself() {
    let (world, fake, mut clients) = world("", 40).await;
    let mut first = clients[2].clone();
    let lease = acquire(&mut first).await.unwrap();
    let code = world.code("known");
    let known = first.redeem(&lease, &code, |request| "known".clone_into(&mut request.request_id));
    let known = known.await.unwrap().redemption.unwrap();

    fake.set(Mode::Fails);
    let redeemed = redeem_all(&world, &clients, 36, "lost").await;
    let in_doubt: Vec<_> = redeemed.into_iter().filter_map(Result::ok).collect();
    assert!(!in_doubt.is_empty());
    let mut db = world.sql().await;
    for server in &mut clients {
        eventually(Duration::from_secs(20), "the pool is paused", async || {
            let refused = match acquire(server).await {
                Ok(lease) => {
                    server.release(&lease).await.unwrap();
                    return None;
                }
                Err(refused) => refused,
            };
            assert_eq!(refused.code(), Code::Unavailable);
            assert_eq!(reason(&refused), "PROVIDER_UNAVAILABLE");
            assert!(refused.get_details_retry_info().is_some(), "{refused:?}");
            Some(())
        })
        .await;
    }
    // What is known is told all the same.
    let again = first.redeem(&lease, &code, |request| "known".clone_into(&mut request.request_id));
    assert_eq!(again.await.unwrap().redemption.unwrap().redemption_id, known.redemption_id);

    // Few calls try it: one for each pause, however many redemptions are in doubt.
    let calls = fake.calls().len();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let tries = fake.calls().len() - calls;
    assert!(tries <= 3, "{tries} sends while it fails");

    fake.set(Mode::Works);
    eventually(Duration::from_secs(60), "it works again by itself", async || {
        let redeemed = redeem_one(clients[0].clone(), world.code("works")).await.ok()?;
        (redeemed.state() == pb::RedemptionState::Succeeded).then_some(())
    })
    .await;
    eventually(Duration::from_secs(60), "what was in doubt is settled", async || {
        (checks::open_redemptions(&mut db).await == 0).then_some(())
    })
    .await;
    let most = sqlx::query("SELECT max(checks) AS most FROM redemptions").fetch_one(&mut db).await;
    let most: i32 = most.unwrap().get("most");
    assert!(most <= 8, "{most} checks of one redemption");
}

#[tokio::test]
async fn a_provider_that_fails_as_a_whole_holds_back_a_batch_until_it_works() {
    let (world, fake, mut clients) = world("", 40).await;
    fake.set(Mode::Fails);
    redeem_all(&world, &clients[..1], 12, "lost").await;
    eventually(Duration::from_secs(20), "the pool is paused", async || {
        acquire(&mut clients[0]).await.is_err().then_some(())
    })
    .await;
    let open = pb::BatchOpen {
        pool_id: POOL.to_owned(),
        item_timeout: seconds(1.0),
        max_in_flight: 8,
        ..opening("b")
    };
    let mut session = Session::open(&mut clients[0], open).await.unwrap();
    let items = session.items.clone();
    let codes: Vec<_> = (0..30).map(|number| world.code(&format!("held-{number}"))).collect();
    let sending = tokio::spawn(async move {
        for (number, code) in codes.iter().enumerate() {
            let worth = Some(eur(1000));
            let item = pb::BatchItem { expected: worth, ..item(&format!("i{number}"), code) };
            items.send(said_item(item)).await.unwrap();
        }
    });
    // For longer than an item waits for an account.
    let begun = Instant::now();
    let mut results = Vec::new();
    while begun.elapsed() < Duration::from_secs(3) {
        match session.next().await.unwrap().unwrap() {
            Told::Progress(progress) => assert!(progress.held_back <= progress.in_flight),
            Told::Result(result) => results.push(result),
            Told::Summary(summary) => panic!("{summary:?}"),
        }
    }
    let progress = loop {
        match session.next().await.unwrap().unwrap() {
            Told::Progress(progress) if progress.held_back > 0 => break progress,
            Told::Progress(_) => {}
            Told::Result(result) => results.push(result),
            Told::Summary(summary) => panic!("{summary:?}"),
        }
    };
    assert_eq!(progress.rejected, 0);
    // Each try of whether it works again is one of them.
    assert!(results.len() <= 6, "{results:?}");
    fake.set(Mode::Works);
    sending.await.unwrap();
    let ended = session.finish().await.unwrap();
    assert_eq!((ended.summary.received, ended.summary.rejected), (30, 0));
    assert!(ended.summary.succeeded >= 24, "{:?}", ended.summary);
    let mut db = world.sql().await;
    eventually(Duration::from_secs(60), "what was in doubt is settled", async || {
        (checks::open_redemptions(&mut db).await == 0).then_some(())
    })
    .await;
}
