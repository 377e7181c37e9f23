//! Webhooks: what is verified brings a look-up forward, and nothing else has any effect.

mod floods;
mod refusals;
mod routes;
mod shop;

use std::time::Duration;

use holdfast::{
    domain::id::{PoolId, RedemptionId},
    rpc::pb::{self, RedemptionState},
};
use reqwest::StatusCode;
use sqlx::{PgConnection, Row as _};

use self::shop::{Call, Shop, WAIT};
use super::{apply, give_secret};
use crate::support::{
    wait::eventually,
    world::{Clients, World, eur, lease},
};

/// Far below [`WAIT`], which is what a test would wait for without a webhook.
const LIMIT: Duration = Duration::from_secs(30);
const UUID: &str = "\"uuid\"";

/// A world whose servers serve webhooks, and have the secrets of a shop of these names.
async fn world_of(shops: &[&str]) -> World {
    let listen = |args: &mut holdfast::config::ServeArgs| {
        args.webhook_listen = Some(([127, 0, 0, 1], 0).into());
    };
    let world = World::with(listen, 1).await;
    for id in shops {
        give_secret(&world, id, "hook", &format!("hook-of-{id}"));
        give_secret(&world, id, "salt", "salt");
    }
    world
}

/// Applies a shop's profile, and creates a pool of its name with an account in it.
async fn open_pool(clients: &mut Clients, profile: &str) -> String {
    let id = apply(clients, profile).await.unwrap().provider_id;
    let pool = pb::Pool {
        pool_id: id.clone(),
        provider_id: id.clone(),
        currency_code: "EUR".to_owned(),
        ..Default::default()
    };
    clients.pools.create_pool(pb::CreatePoolRequest { pool: Some(pool) }).await.unwrap();
    let account = pb::Account {
        pool_id: id.clone(),
        account_id: format!("account-{id}"),
        ..Default::default()
    };
    let request = pb::CreateAccountRequest { account: Some(account) };
    clients.accounts.create_account(request).await.unwrap();
    id
}

/// Redeems a card in the pool of a shop.
async fn redeem(mut clients: Clients, pool_id: String, code: String) -> pb::Redemption {
    let acquired = clients.acquire(|request| request.pool_id = pool_id).await.unwrap();
    let lease = lease(&acquired);
    let redeemed = clients.redeem(&lease, &code, |request| {
        request.expected = Some(eur(1000));
        request.release_on_completion = true;
    });
    redeemed.await.unwrap().redemption.unwrap()
}

/// Waits until a call is not refused because its path is not served yet, and answers with its status.
async fn served(world: &World, server: usize, call: &Call) -> StatusCode {
    eventually(LIMIT, "the path is served", async || {
        let status = call.make(world, server).await;
        let not_yet = [StatusCode::NOT_FOUND, StatusCode::SERVICE_UNAVAILABLE];
        (!not_yet.contains(&status)).then_some(status)
    })
    .await
}

/// What is recorded of a redemption's checks.
#[derive(Clone, Debug, PartialEq)]
struct Checks {
    state: String,
    next_check_in: f64,
    next_check_at: Option<time::OffsetDateTime>,
    checks: i32,
    not_found_checks: i32,
    attempts: i32,
    was_claimed: bool,
}

async fn checks_of(db: &mut PgConnection, pool_id: &str) -> Checks {
    let row = sqlx::query(
        "SELECT state, extract(epoch FROM next_check_at - now())::float8 AS next_in, next_check_at, checks,
             not_found_checks, attempts, early_check_at IS NOT NULL AS claimed
         FROM redemptions WHERE pool_id = $1",
    )
    .bind(pool_id)
    .fetch_one(db)
    .await
    .unwrap();
    Checks {
        state: row.get("state"),
        next_check_in: row.get::<Option<f64>, _>("next_in").unwrap_or_default(),
        next_check_at: row.get("next_check_at"),
        checks: row.get("checks"),
        not_found_checks: row.get("not_found_checks"),
        attempts: row.get("attempts"),
        was_claimed: row.get("claimed"),
    }
}

/// Redeems a card that stays in doubt, and waits until nobody asks about it for minutes.
async fn doubt(world: &World, clients: &Clients, pool_id: &str) -> Checks {
    let code = world.code(pool_id);
    let redemption = redeem(clients.clone(), pool_id.to_owned(), code).await;
    assert_eq!(redemption.state(), RedemptionState::InDoubt);
    let mut db = world.sql().await;
    eventually(LIMIT, "the next check is far", async || {
        let checks = checks_of(&mut db, pool_id).await;
        (checks.checks == 1 && checks.next_check_in > 60.0).then_some(checks)
    })
    .await
}

/// Lets the shop finish, and the redemption with it.
async fn settle(world: &World, shop: &Shop, pool_id: &str) {
    shop.finish();
    let call = Call::about_key(pool_id, &shop.key_of(&format!("account-{pool_id}")).unwrap());
    assert_eq!(call.make(world, 0).await, StatusCode::NO_CONTENT);
    succeeds(world, pool_id).await;
}

async fn succeeds(world: &World, pool_id: &str) -> Checks {
    let mut db = world.sql().await;
    eventually(LIMIT, "the redemption succeeds", async || {
        let checks = checks_of(&mut db, pool_id).await;
        (checks.state == "SUCCEEDED").then_some(checks)
    })
    .await
}

#[tokio::test]
async fn a_call_about_what_is_in_doubt_is_followed_by_a_look_up() {
    let kinds = [
        ("by-uuid", UUID),
        ("by-hex", "\"hex\"\nlength = 16"),
        ("by-digits", "\"digits\"\nlength = 16"),
        ("by-task", UUID),
    ];
    let world = world_of(&kinds.map(|(id, _)| id)).await;
    let mut clients = world.clients(0).await;
    for (id, kind) in kinds {
        let shop = Shop::open().await;
        open_pool(&mut clients, &shop.profile(id, 1, kind, "2s")).await;
        let before = doubt(&world, &clients, id).await;
        let key = shop.key_of(&format!("account-{id}")).unwrap();
        let call = match id {
            "by-task" => Call::about_task(id, &format!("task-{key}")),
            _ => Call::about_key(id, &key.to_uppercase()),
        };
        // At first nothing comes of it: the provider has not finished, and is believed, not its call.
        let asked = shop.look_ups(&key);
        assert_eq!(served(&world, 0, &call).await, StatusCode::NO_CONTENT);
        eventually(LIMIT, "a look-up", async || (shop.look_ups(&key) > asked).then_some(())).await;
        let mut db = world.sql().await;
        let after = checks_of(&mut db, id).await;
        assert_eq!(
            (
                after.state,
                after.next_check_at,
                after.checks,
                after.not_found_checks,
                after.attempts
            ),
            (before.state, before.next_check_at, before.checks, 0, before.attempts),
            "{id}: the row is as it was"
        );
        assert!(after.was_claimed, "{id}");

        shop.finish();
        assert_eq!(call.make(&world, 0).await, StatusCode::NO_CONTENT);
        let settled = succeeds(&world, id).await;
        assert_eq!(settled.checks, before.checks, "{id}: no check came due");
        // About what is settled nothing is done, and the caller does not hear so.
        assert_eq!(call.make(&world, 0).await, StatusCode::NO_CONTENT);
    }
}

#[tokio::test]
async fn a_server_that_polls_does_so_at_once_when_its_provider_calls() {
    let world = world_of(&["slow"]).await;
    let shop = Shop::open().await;
    let mut clients = world.clients(0).await;
    open_pool(&mut clients, &shop.profile("slow", 1, UUID, "9m")).await;
    let redeeming = tokio::spawn(redeem(clients, "slow".to_owned(), world.code("slow")));
    let key = eventually(LIMIT, "the card is sent", async || shop.key_of("account-slow")).await;
    let mut db = world.sql().await;
    eventually(LIMIT, "the task is recorded, so a poll is what it waits for", async || {
        let task = "SELECT provider_task FROM redemptions WHERE pool_id = 'slow'";
        sqlx::query(task).fetch_one(&mut db).await.unwrap().get::<Option<String>, _>(0)
    })
    .await;
    shop.finish();
    let call = Call::about_key("slow", &key);
    assert_eq!(served(&world, 0, &call).await, StatusCode::NO_CONTENT);
    let redeemed = tokio::time::timeout(LIMIT, redeeming).await.unwrap().unwrap();
    assert_eq!(redeemed.state(), RedemptionState::Succeeded);
    assert_eq!(shop.look_ups(&key), 1, "the poll was its sender's");
    assert!(LIMIT.as_secs() < WAIT / 4);
}

#[tokio::test]
async fn a_server_that_does_not_send_it_looks_up_what_its_provider_calls_about() {
    let mut world = world_of(&["slow"]).await;
    world.start_server().await;
    let shop = Shop::open().await;
    let mut clients = world.clients(0).await;
    open_pool(&mut clients, &shop.profile("slow", 1, UUID, "9m")).await;
    let redeeming = tokio::spawn(redeem(clients, "slow".to_owned(), world.code("slow")));
    let key = eventually(LIMIT, "the card is sent", async || shop.key_of("account-slow")).await;
    let call = Call::about_key("slow", &key);
    // Before it has ended nothing comes of it but a look-up: the row stays as its sender knows it.
    let mut db = world.sql().await;
    let before = checks_of(&mut db, "slow").await;
    assert_eq!(served(&world, 1, &call).await, StatusCode::NO_CONTENT);
    eventually(LIMIT, "a look-up", async || (shop.look_ups(&key) == 1).then_some(())).await;
    let after = checks_of(&mut db, "slow").await;
    assert_eq!(
        (&*after.state, after.next_check_at, after.checks, after.attempts, after.was_claimed),
        ("SUBMITTED", before.next_check_at, 0, before.attempts, true)
    );
    assert_eq!(shop.sends(&key), 1);

    shop.finish();
    assert_eq!(served(&world, 1, &call).await, StatusCode::NO_CONTENT);
    let settled = succeeds(&world, "slow").await;
    assert_eq!((settled.checks, shop.look_ups(&key), shop.sends(&key)), (0, 2, 1));
    // Its sender, whose next poll is minutes away, finds that out.
    let redeemed = tokio::time::timeout(LIMIT, redeeming).await.unwrap().unwrap();
    assert_eq!(redeemed.state(), RedemptionState::Succeeded);
    assert_eq!(shop.sends(&key), 1);
}

/// A check may do more than to ask. While one is under way a call waits for it.
#[tokio::test]
async fn a_call_during_a_check_is_followed_by_a_look_up_after_it() {
    let world = world_of(&["shop"]).await;
    let shop = Shop::open().await;
    let mut clients = world.clients(0).await;
    open_pool(&mut clients, &shop.profile("shop", 1, UUID, "6s")).await;
    doubt(&world, &clients, "shop").await;
    let key = shop.key_of("account-shop").unwrap();
    let (store, pool_id) = (world.store(), PoolId::parse("shop").unwrap());
    let id = RedemptionId::parse(&key).unwrap();
    let claim = async || {
        let claimed = store.claim_early_check(&pool_id, id, Duration::from_millis(1)).await;
        claimed.unwrap().is_some()
    };
    assert!(claim().await, "nobody has it");

    let stalled = shop.stall().await;
    let asked = shop.look_ups(&key);
    let mut db = world.sql().await;
    sqlx::query("UPDATE redemptions SET next_check_at = now()").execute(&mut db).await.unwrap();
    eventually(LIMIT, "a check", async || (shop.look_ups(&key) > asked).then_some(())).await;
    assert!(!claim().await, "a check has it");
    shop.finish();
    let call = Call::about_key("shop", &key);
    assert_eq!(served(&world, 0, &call).await, StatusCode::NO_CONTENT);
    drop(stalled);
    // The check is answered what was true before, and the next one is far. What settles it is the call.
    let settled = succeeds(&world, "shop").await;
    assert_eq!(settled.checks, 2);
}
