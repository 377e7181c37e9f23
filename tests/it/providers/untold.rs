//! Providers whose answers tell little: refusals without a key, pages that get lost, and no way to ask.

use std::{
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::RawQuery,
    http::{StatusCode, Uri},
    response::{IntoResponse as _, Response},
};
use holdfast::rpc::pb;
use tokio::net::TcpListener;

use super::{apply, give_secret};
use crate::support::{
    checks,
    wait::eventually,
    world::{Clients, World, lease, seconds},
};

const POOL: &str = "untold";

/// A profile with these ops, which waits for little.
fn profile(url: &str, dedup: &str, ops: &str) -> String {
    format!(
        r#"id = "untold"
version = 1
[http]
base = "{url}"
timeout = "1s"
[identity]
key = "uuid"
dedup = "{dedup}"
window = "24h"
[times]
visibility = "100ms"
max_processing = "1s"
send_window = "1s"
{ops}"#
    )
}

const SEND: &str = r#"
[op.send]
path = "/send"
body = { key = "{{ key }}", code = "{{ code }}" }
take = { key = "/key", amount = { at = "/amount", unit = "minor" }, failure = "/error" }
[[op.send.rule]]
when = { status = [200], eq = { "/state" = "done" } }
then = "succeeded"
[[op.send.rule]]
when = { status = [422], has = ["/error"] }
then = { failed = { spent = false } }
"#;

const FIND: &str = r#"
[op.find]
path = "/find"
query = { page = "{{ page? }}" }
items = "/list"
match = { "/key" = "{{ key }}" }
pages = { next = "/next" }
take = { amount = "expected" }
ends_doubt = true
[[op.find.rule]]
when = { found = false }
then = "not_found"
[[op.find.rule]]
when = { status = [429] }
then = "not_executed"
"#;

/// Serves what `answer` says to a path and its query, whatever else is in the request.
async fn serve(answer: impl Fn(&str, &str) -> Response + Clone + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let handler = move |uri: Uri, RawQuery(query): RawQuery, _body: String| {
        let answer = answer(uri.path(), &query.unwrap_or_default());
        async move { answer }
    };
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(handler)).await });
    url
}

fn say(status: u16, body: &str) -> Response {
    (StatusCode::from_u16(status).unwrap(), body.to_owned()).into_response()
}

async fn create(clients: &mut Clients, profile: &str, accounts: usize) {
    apply(clients, profile).await.unwrap();
    let pool = pb::Pool {
        pool_id: POOL.to_owned(),
        provider_id: "untold".to_owned(),
        currency_code: "USD".to_owned(),
        ..Default::default()
    };
    clients.pools.create_pool(pb::CreatePoolRequest { pool: Some(pool) }).await.unwrap();
    for number in 0..accounts {
        let account = pb::Account {
            pool_id: POOL.to_owned(),
            account_id: format!("account-{number}"),
            ..Default::default()
        };
        let request = pb::CreateAccountRequest { account: Some(account) };
        clients.accounts.create_account(request).await.unwrap();
    }
}

async fn redeem(clients: &mut Clients, code: &str) -> pb::Redemption {
    let acquired = clients
        .acquire(|request| {
            request.pool_id = POOL.to_owned();
            request.wait_timeout = seconds(5.0);
        })
        .await
        .unwrap();
    let lease = lease(&acquired);
    let redeemed = clients.redeem(&lease, code, |request| request.release_on_completion = true);
    redeemed.await.unwrap().redemption.unwrap()
}

/// The state of the pool's one redemption, and what was answered last, once it is not open any more.
async fn settled(world: &World) -> (String, String) {
    let mut db = world.sql().await;
    eventually(Duration::from_secs(60), "it is settled or a person's", async || {
        (checks::open_redemptions(&mut db).await == 0).then_some(())
    })
    .await;
    let query = "SELECT state, coalesce(last_answer, '') FROM redemptions WHERE pool_id = $1";
    sqlx::query_as(query).bind(POOL).fetch_one(&mut db).await.unwrap()
}

#[tokio::test]
async fn a_refusal_that_tells_no_key_is_one_at_once_however_many_came_before() {
    let url = serve(|path, _| match path {
        "/send" => say(422, r#"{"error": "UNKNOWN"}"#),
        _ => say(404, "{}"),
    })
    .await;
    let look_up = r#"
[op.look_up]
path = "/look-up/{{ key }}"
as = "send"
"#;
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    create(&mut clients, &profile(&url, "replay", &format!("{SEND}{look_up}")), 1).await;
    for number in 0..5 {
        let redemption = redeem(&mut clients, &world.code(&format!("untold-{number}"))).await;
        assert_eq!(redemption.state(), pb::RedemptionState::Failed, "{number}: {redemption:?}");
        assert_eq!(redemption.attempts, 1);
    }
}

#[tokio::test]
async fn what_is_not_found_late_enough_is_proof_whatever_the_connection_carried_before() {
    let url = serve(|path, _| match path {
        "/send" => say(500, "oops"),
        _ => say(404, r#"{"error": "NOT_FOUND"}"#),
    })
    .await;
    let look_up = r#"
[op.look_up]
path = "/look-up/{{ key }}"
take = { key = "/key" }
ends_doubt = true
[[op.look_up.rule]]
when = { status = [404], eq = { "/error" = "NOT_FOUND" } }
then = "not_found"
"#;
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    create(&mut clients, &profile(&url, "replay", &format!("{SEND}{look_up}")), 1).await;
    redeem(&mut clients, &world.code("untold")).await;
    assert_eq!(settled(&world).await.0, "FAILED");
}

#[tokio::test]
async fn a_person_sees_what_the_provider_answered_where_it_cannot_be_asked() {
    let url = serve(|_, _| say(200, r#"{"state": "done", "amount": "ten"}"#)).await;
    let send = SEND.replace("key = \"/key\", ", "");
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    create(&mut clients, &profile(&url, "none", &send), 1).await;
    redeem(&mut clients, &world.code("untold")).await;
    let (state, answer) = settled(&world).await;
    assert_eq!(state, "NEEDS_REVIEW");
    assert!(answer.contains("amount is no amount"), "{answer}");
    assert!(answer.contains("cannot be asked"), "{answer}");
}

/// Looked up by the key: there, not there, or something else.
const LOOK_UP: &str = r#"
[op.look_up]
path = "/look-up/{{ key }}"
take = { key = "/key", amount = { at = "/amount", unit = "minor" } }
ends_doubt = true
[[op.look_up.rule]]
when = { status = [200], eq = { "/state" = "done" } }
then = "succeeded"
[[op.look_up.rule]]
when = { status = [404], eq = { "/error" = "NOT_FOUND" } }
then = "not_found"
"#;

#[tokio::test]
async fn one_odd_answer_past_its_time_leaves_nothing_to_a_person_where_good_ones_follow() {
    let begun = Arc::new(OnceLock::new());
    let odd = Arc::new(AtomicUsize::new(0));
    let url = serve(move |path, _| {
        let begun: Instant = *begun.get_or_init(Instant::now);
        match path {
            "/send" => say(500, "oops"),
            // Past twice the longest processing time, since which it might have been left to a person.
            _ if begun.elapsed() < Duration::from_secs(4) => say(503, "later"),
            _ if odd.fetch_add(1, Ordering::Relaxed) == 0 => say(200, "{}"),
            _ => say(404, r#"{"error": "NOT_FOUND"}"#),
        }
    })
    .await;
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    create(&mut clients, &profile(&url, "replay", &format!("{SEND}{LOOK_UP}")), 1).await;
    redeem(&mut clients, &world.code("untold")).await;
    assert_eq!(settled(&world).await.0, "FAILED");
}

#[tokio::test]
async fn an_answer_that_stays_odd_reaches_a_person_with_the_field_that_is_wrong() {
    let url = serve(|path, _| match path.strip_prefix("/look-up/") {
        None => say(500, "oops"),
        Some(key) => say(200, &format!(r#"{{"key": "{key}", "state": "done", "amount": "ten"}}"#)),
    })
    .await;
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    create(&mut clients, &profile(&url, "replay", &format!("{SEND}{LOOK_UP}")), 1).await;
    redeem(&mut clients, &world.code("untold")).await;
    let (state, answer) = settled(&world).await;
    assert_eq!(state, "NEEDS_REVIEW");
    assert!(answer.contains("amount is no amount"), "{answer}");
}

#[tokio::test]
async fn an_answer_with_an_unusual_status_that_no_rule_names_is_no_outcome() {
    let told = Arc::new(Mutex::new((200, "done")));
    let tells = Arc::clone(&told);
    let url = serve(move |_, _| {
        let (status, state) = *tells.lock().unwrap();
        say(status, &format!(r#"{{"state": "{state}", "amount": 1000, "error": "NO"}}"#))
    })
    .await;
    let send = r#"
[op.send]
path = "/send"
body = { key = "{{ key }}", code = "{{ code }}" }
take = { amount = { at = "/amount", unit = "minor" }, failure = "/error" }
[[op.send.rule]]
when = { eq = { "/state" = "done" } }
then = "succeeded"
[[op.send.rule]]
when = { eq = { "/state" = "refused" } }
then = { failed = { spent = false } }
"#;
    use pb::RedemptionState::{Failed, Succeeded};
    let whole = [(200, "done", Succeeded), (201, "done", Succeeded), (422, "refused", Failed)];
    let odd =
        [205, 206, 300, 302, 307, 600, 999].map(|status| [(status, "done"), (status, "refused")]);
    let odd: Vec<_> = odd.concat().into_iter().chain([(400, "done"), (500, "done")]).collect();
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    create(&mut clients, &profile(&url, "none", send), odd.len() + 1).await;
    for (status, state, wanted) in whole {
        *told.lock().unwrap() = (status, state);
        let redemption = redeem(&mut clients, &world.code(&format!("{status}-{state}"))).await;
        assert_eq!(redemption.state(), wanted, "{status} {state}: {redemption:?}");
    }
    for (status, state) in odd {
        *told.lock().unwrap() = (status, state);
        let redemption = redeem(&mut clients, &world.code(&format!("{status}-{state}"))).await;
        assert!(
            ![Succeeded, Failed].contains(&redemption.state()),
            "{status} {state}: {redemption:?}"
        );
    }
    // Nothing can be asked: a person has each of them.
    let mut db = world.sql().await;
    eventually(Duration::from_secs(20), "a person has them", async || {
        (checks::open_redemptions(&mut db).await == 0).then_some(())
    })
    .await;
    let settled = "SELECT count(*) FROM redemptions WHERE state IN ('SUCCEEDED', 'FAILED')";
    let settled: i64 = sqlx::query_scalar(settled).fetch_one(&mut db).await.unwrap();
    assert_eq!(settled, 3);
}

#[tokio::test]
async fn a_page_that_gets_lost_says_nothing_and_is_waited_for() {
    // The second page is not told until long after the time for a review.
    let asked = Arc::new(AtomicUsize::new(0));
    let url = serve(move |path, query| match (path, query) {
        ("/send", _) => say(500, "oops"),
        (_, "page=2") if asked.fetch_add(1, Ordering::Relaxed) < 12 => {
            // An answer that breaks off.
            let body = axum::body::Body::from_stream(broken());
            Response::new(body)
        }
        (_, "page=2") => say(200, r#"{"list": [{"key": "KEY", "state": "done"}]}"#),
        _ => say(200, r#"{"list": [], "next": 2}"#),
    })
    .await;
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    create(&mut clients, &profile(&url, "none", &format!("{SEND}{FIND}")), 1).await;
    redeem(&mut clients, &world.code("untold")).await;
    assert_eq!(settled(&world).await.0, "FAILED", "it is not found once all pages are told");
}

/// A body that ends in an error after its first bytes.
fn broken() -> impl futures_util::Stream<Item = Result<&'static str, std::io::Error>> {
    futures_util::stream::iter([Ok("{\"list\": "), Err(std::io::Error::other("broken"))])
}

#[tokio::test]
async fn a_provider_of_pages_that_takes_no_calls_now_is_asked_later() {
    let asked = Arc::new(AtomicUsize::new(0));
    let url = serve(move |path, _| match path {
        "/send" => say(500, "oops"),
        _ if asked.fetch_add(1, Ordering::Relaxed) < 12 => say(429, "slow down"),
        _ => say(200, r#"{"list": []}"#),
    })
    .await;
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    create(&mut clients, &profile(&url, "none", &format!("{SEND}{FIND}")), 1).await;
    redeem(&mut clients, &world.code("untold")).await;
    assert_eq!(settled(&world).await.0, "FAILED", "it is not found once it takes calls");
}

#[tokio::test]
async fn a_token_that_an_answer_repeats_is_taken_out() {
    let url = serve(|path, _| match path {
        "/token" => say(200, r#"{"token": "untold-token"}"#),
        _ => say(422, r#"{"error": "untold-token is not good for this"}"#),
    })
    .await;
    let auth = r#"
[auth]
kind = "token"
path = "/token"
take = { token = "/token" }
"#;
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    create(&mut clients, &profile(&url, "none", &format!("{auth}{SEND}")), 1).await;
    let redemption = redeem(&mut clients, &world.code("untold")).await;
    let reason = redemption.failure.unwrap().reason;
    assert_eq!(reason, "… is not good for this");
}

#[tokio::test]
async fn a_secret_that_an_answer_repeats_is_taken_out_also_where_its_file_has_changed() {
    let world = World::start().await;
    give_secret(&world, "untold", "key", "untold-old");
    let file = world.args().secrets_dir.as_ref().unwrap().join("untold/key");
    // The file changes while the answer is on its way.
    let url = serve(move |_, _| {
        std::fs::write(&file, "untold-new").unwrap();
        say(422, r#"{"error": "untold-old is not good for this"}"#)
    })
    .await;
    let auth = "[auth]\nkind = \"bearer\"\ntoken = \"{{ secret.key }}\"\n";
    let mut clients = world.clients(0).await;
    create(&mut clients, &profile(&url, "none", &format!("{auth}{SEND}")), 1).await;
    let redemption = redeem(&mut clients, &world.code("untold")).await;
    assert_eq!(redemption.failure.unwrap().reason, "… is not good for this");
}
