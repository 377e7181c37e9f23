//! Secrets: two sign for a while, they are encrypted, follow the secret key, and are logged nowhere.

use holdfast::rpc::pb;
use sqlx::Row as _;

use super::{ID, LIMIT, receiver::Receiver, subscribe, subscription};
use crate::{
    keys::{first_key, rotate, write_keys},
    support::{
        logs,
        wait::eventually,
        world::{Clients, POOL, World, seconds},
    },
    watch::redeem,
};

async fn rotate_secret(clients: &mut Clients, overlap: f64) -> String {
    let request = pb::RotateSubscriptionSecretRequest {
        pool_id: POOL.to_owned(),
        subscription_id: ID.to_owned(),
        overlap: seconds(overlap),
    };
    clients.subscriptions.rotate_subscription_secret(request).await.unwrap().into_inner().secret
}

#[tokio::test]
async fn two_secrets_sign_until_the_overlap_is_over() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(1).await;
    let receiver = Receiver::start().await;
    let first = subscribe(&mut clients, &receiver).await;
    let second = rotate_secret(&mut clients, 3600.0).await;
    let one = redeem(&mut clients, &world.code("one1"), "").await.unwrap();
    let got = receiver.takes([&one.redemption_id]).await;
    assert!(got[0].is_signed_by(&first) && got[0].is_signed_by(&second));
    assert!(subscription(&mut clients).await.previous_secret_expire_time.is_some());
    let third = rotate_secret(&mut clients, 0.0).await;
    // The server that delivers sees the change within half a second.
    let mut number = 0;
    eventually(LIMIT, "only the last one signs", async || {
        number += 1;
        let one = redeem(&mut clients, &world.code(&format!("n{number:03}")), "").await.unwrap();
        let got = receiver.takes([&one.redemption_id]).await;
        let last = got.iter().rfind(|got| got.redemption_id() == one.redemption_id).unwrap();
        let by = [&first, &second, &third].map(|secret| last.is_signed_by(secret));
        (by == [false, false, true]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn secrets_are_in_no_log_and_encrypted_in_the_database_with_the_current_key() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(1).await;
    let receiver = Receiver::start().await;
    let first = subscribe(&mut clients, &receiver).await;
    let second = rotate_secret(&mut clients, 3600.0).await;
    let key = first_key(&world);
    write_keys(&world, &key, &[2, 1]);
    rotate(&world, &mut |_| {}).await.unwrap();
    let mut db = world.sql().await;
    let keys = "SELECT key_of(secret), key_of(secret_before), s::text FROM subscriptions s";
    let row = sqlx::query(keys).fetch_one(&mut db).await.unwrap();
    assert_eq!((row.get::<i32, _>(0), row.get::<i32, _>(1)), (2, 2));
    let one = redeem(&mut clients, &world.code("one1"), "").await.unwrap();
    let got = receiver.takes([&one.redemption_id]).await;
    assert!(got.iter().all(|it| it.is_signed_by(&first) && it.is_signed_by(&second)));
    let stored: String = row.get(2);
    let events = "SELECT string_agg(e::text, ' ') FROM audit_events e";
    let events: String = sqlx::query_scalar(events).fetch_one(&mut db).await.unwrap();
    assert!(events.contains("CreateSubscription") && events.contains("RotateSubscriptionSecret"));
    for secret in [&first, &second] {
        let bare = secret.strip_prefix("whsec_").unwrap();
        let hex = hex::encode(bare);
        assert!(!stored.contains(bare) && !stored.contains(&hex) && !events.contains(bare));
        assert_eq!(logs::lines_with(bare), [""; 0]);
    }
}
