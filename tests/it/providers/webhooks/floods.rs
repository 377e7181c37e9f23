//! Floods: of forged calls, and of good ones that are repeated.

use std::{sync::Arc, time::Instant};

use holdfast::rpc::pb::RedemptionState;
use reqwest::StatusCode;
use tokio::task::JoinSet;

use super::{UUID, doubt, open_pool, redeem, served, settle, shop::Call, shop::Shop, world_of};
use crate::support::{
    proxy::{
        Proxy,
        postgres::{Fault, Postgres, statement},
    },
    world::{POOL, World},
};

const FORGED: usize = 4000;
const REPEATED: usize = 1000;

/// How often the metric of refused signatures counted, in this process.
async fn refused(world: &World) -> usize {
    let url = format!("http://{}/metrics", world.server(0).admin_addr());
    let metrics = reqwest::get(&url).await.unwrap().text().await.unwrap();
    let name = "holdfast_webhooks_refused_total{reason=\"wrong_signature\"} ";
    metrics.lines().find_map(|line| line.strip_prefix(name)?.parse().ok()).unwrap_or(0)
}

/// Makes a call very often, on sixteen connections.
async fn repeat(world: &World, call: &Call, times: usize, status: StatusCode) {
    let (client, url) = (reqwest::Client::new(), Arc::new(call.url(world, 0)));
    let mut callers = JoinSet::new();
    for _ in 0..16 {
        let (client, url, call) = (client.clone(), Arc::clone(&url), call.clone());
        callers.spawn(async move {
            for _ in 0..times / 16 {
                let mut request = client.post(url.as_str()).body(call.body.clone());
                for (name, value) in call.headers() {
                    request = request.header(name, value);
                }
                assert_eq!(request.send().await.unwrap().status(), status);
            }
        });
    }
    while let Some(called) = callers.join_next().await {
        called.unwrap();
    }
}

#[tokio::test]
async fn forged_calls_cost_no_statement_and_a_redemption_goes_through_beside_them() {
    let mut proxy = None;
    let through = |args: &mut holdfast::config::ServeArgs| {
        use secrecy::ExposeSecret as _;
        let url = args.database_url.as_ref().unwrap().expose_secret().to_owned();
        let before = Proxy::<Postgres>::before(&url);
        args.database_url = Some(before.url(&url).into());
        args.webhook_listen = Some(([127, 0, 0, 1], 0).into());
        proxy = Some(before);
    };
    let world = World::with(through, 1).await;
    let proxy = proxy.unwrap();
    super::give_secret(&world, "shop", "hook", "hook-of-shop");
    super::give_secret(&world, "shop", "salt", "salt");
    let shop = Shop::open().await;
    let mut clients = world.clients(0).await;
    open_pool(&mut clients, &shop.profile("shop", 1, UUID, "2s")).await;
    clients.create_account("a", |_| {}).await;
    let id = "0190163d-8694-739b-aea5-966c26f8ad90";
    let watched = || {
        let heads = [
            "FROM pools p\nJOIN",
            "r.provider_task = $2",
            "-- Claim one early",
            "-- Which redemption has a key",
        ];
        heads.map(|head| proxy.fault(statement(head).times(0), Fault::CutBefore))
    };
    let of_good = watched();
    assert_eq!(served(&world, 0, &Call::about_key("shop", id)).await, StatusCode::NO_CONTENT);
    assert_eq!(of_good[0].matched(), 1, "what is verified is read");
    let of_forged = watched();
    let profiles =
        proxy.fault(statement("-- Which versions of profiles").times(0), Fault::CutBefore);
    let (before, began) = (refused(&world).await, Instant::now());
    let forged = Call { secret: "guess".into(), ..Call::about_key("shop", id) };
    let flood = repeat(&world, &forged, FORGED, StatusCode::UNAUTHORIZED);
    let redeeming = redeem(clients, POOL.to_owned(), world.code("beside"));
    let ((), redeemed) = tokio::join!(flood, redeeming);
    assert_eq!(redeemed.state(), RedemptionState::Succeeded);
    assert!(refused(&world).await >= before + FORGED);
    for (place, watched) in of_forged.iter().enumerate() {
        assert_eq!(watched.matched(), 0, "statement {place}");
    }
    let polls = began.elapsed().as_secs() / 2 + 2;
    assert!(u64::try_from(profiles.matched()).unwrap() <= polls, "read by the clock alone");
}

#[tokio::test]
async fn a_call_that_is_repeated_asks_the_provider_now_and_then() {
    let world = world_of(&["shop"]).await;
    let shop = Shop::open().await;
    let mut clients = world.clients(0).await;
    open_pool(&mut clients, &shop.profile("shop", 1, UUID, "2s")).await;
    doubt(&world, &clients, "shop").await;
    let key = shop.key_of("account-shop").unwrap();
    let asked = shop.look_ups(&key);
    let call = Call::about_key("shop", &key);
    served(&world, 0, &call).await;
    let began = Instant::now();
    repeat(&world, &call, REPEATED, StatusCode::NO_CONTENT).await;
    // By its other name too.
    let by_task = Call::about_task("shop", &format!("task-{key}"));
    repeat(&world, &by_task, REPEATED, StatusCode::NO_CONTENT).await;
    let bound = began.elapsed().as_secs() / 5 + 2;
    let asked = shop.look_ups(&key) - asked;
    assert!(u64::try_from(asked).unwrap() <= bound, "{asked} look-ups");
    // The last of them is not forgotten.
    settle(&world, &shop, "shop").await;
}
