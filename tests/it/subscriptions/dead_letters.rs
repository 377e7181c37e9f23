//! Deliveries that are not taken while others are.

use std::{collections::HashMap, time::Duration};

use holdfast::rpc::pb::DeliveryState;

use super::{
    LIMIT, check_order, deliveries,
    receiver::{Answer, Receiver},
    retry, subscribe, subscription,
};
use crate::{
    support::{wait::eventually, world::World},
    watch::redeem,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bad_outcome_holds_up_its_account_alone() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(3).await;
    let receiver = Receiver::start().await;
    receiver.answer(|got| {
        if got.account_id() == "a-000" { Answer::Status(422) } else { Answer::Status(200) }
    });
    subscribe(&mut clients, &receiver).await;
    let (mut bad, mut good) = (HashMap::new(), HashMap::new());
    for number in 0..12 {
        let code = world.code(&format!("c{number:03}"));
        let account = format!("a-{:03}", number % 3);
        let one = redeem(&mut clients, &code, &account).await.unwrap();
        let into = if number % 3 == 0 { &mut bad } else { &mut good };
        into.insert(one.redemption_id.clone(), one);
    }
    let taken = receiver.takes(good.keys()).await;
    check_order(&taken, &good);
    let kept = eventually(LIMIT, "those of the account are kept", async || {
        let kept = deliveries(&mut clients).await;
        (kept.len() == bad.len()).then_some(kept)
    })
    .await;
    assert!(
        kept.iter().all(|it| it.state() == DeliveryState::Retrying && it.account_id == "a-000")
    );
    assert!(kept[0].last_error.contains("HTTP 422") && kept[0].attempts >= 1, "{kept:?}");
    assert!(kept[1..].iter().all(|it| it.attempts == 0), "they wait behind it: {kept:?}");
    let told = subscription(&mut clients).await;
    assert_eq!((told.retrying, told.dead), (4, 0));
    receiver.answer(|_| Answer::Status(200));
    let taken = receiver.takes(bad.keys()).await;
    bad.extend(good);
    check_order(&taken, &bad);
    eventually(LIMIT, "nothing is kept that was taken", async || {
        deliveries(&mut clients).await.is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_taken_for_too_long_is_a_dead_letter_until_it_is_retried() {
    let world = World::with(|args| args.delivery.give_up = Duration::from_millis(300), 1).await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(2).await;
    let receiver = Receiver::start().await;
    let bad = redeem(&mut clients, &world.code("bad0"), "a-000").await.unwrap().redemption_id;
    let is_bad = bad.clone();
    receiver.answer(move |got| match got.redemption_id() == is_bad {
        true => Answer::Status(400),
        false => Answer::Status(200),
    });
    let request = holdfast::rpc::pb::CreateSubscriptionRequest {
        subscription: Some(holdfast::rpc::pb::Subscription {
            pool_id: crate::support::world::POOL.to_owned(),
            subscription_id: super::ID.to_owned(),
            url: receiver.url(),
            ..Default::default()
        }),
        after: "oldest".to_owned(),
    };
    clients.subscriptions.create_subscription(request).await.unwrap();
    let behind = redeem(&mut clients, &world.code("next"), "a-000").await.unwrap();
    let other = redeem(&mut clients, &world.code("othr"), "a-001").await.unwrap();
    // Its account goes on after it was given up.
    receiver.takes([&behind.redemption_id, &other.redemption_id]).await;
    let dead = eventually(LIMIT, "it is a dead letter", async || {
        let kept = deliveries(&mut clients).await;
        kept.first().is_some_and(|it| it.state() == DeliveryState::Dead).then_some(kept)
    })
    .await;
    assert_eq!((dead.len(), &dead[0].redemption_id), (1, &bad));
    assert!(dead[0].dead_time.is_some() && dead[0].next_try_time.is_none(), "{dead:?}");
    assert!(dead[0].last_error.contains("HTTP 400"), "{dead:?}");
    assert_eq!(subscription(&mut clients).await.dead, 1);
    receiver.answer(|_| Answer::Status(200));
    let before = receiver.got().len();
    assert_eq!(retry(&mut clients, Vec::new()).await, 1);
    receiver.takes([&bad]).await;
    assert_eq!(receiver.got().len(), before + 1);
    eventually(LIMIT, "it is gone", async || {
        deliveries(&mut clients).await.is_empty().then_some(())
    })
    .await;
    assert_eq!(retry(&mut clients, vec![dead[0].delivery_id.clone()]).await, 0);
}
