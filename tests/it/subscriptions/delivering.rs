//! A receiver that works.

use std::{collections::HashMap, time::Duration};

use holdfast::{
    rpc::pb,
    simulator::faults::{Fault, Faults},
};
use tokio::task::JoinSet;

use super::{ID, check_order, receiver::Receiver, subscribe, subscription, update};
use crate::{
    support::{
        proxy::postgres::{Fault as DatabaseFault, statement},
        wait::eventually,
        watch::Watch,
        world::{POOL, World},
    },
    watch::redeem,
};

const LIMIT: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_outcome_is_delivered_signed_and_in_its_accounts_order() {
    let world = World::with(|_| {}, 2).await;
    let mut clients = [world.clients(0).await, world.clients(1).await];
    clients[0].create_accounts(4).await;
    let refused = world.code("refu");
    let rules = Faults::of_card(&refused, &[Fault::LimitReached]);
    world.set_faults(Faults { rules, ..Faults::default() });
    let receiver = Receiver::start().await;
    let secret = subscribe(&mut clients[0], &receiver).await;
    let mut redeeming = JoinSet::new();
    for number in 0..30 {
        let mut clients = clients[number % 2].clone();
        let code = if number == 7 { refused.clone() } else { world.code(&format!("c{number:03}")) };
        redeeming.spawn(async move { redeem(&mut clients, &code, "").await.unwrap() });
    }
    let redeemed: HashMap<_, _> =
        redeeming.join_all().await.into_iter().map(|it| (it.redemption_id.clone(), it)).collect();
    let taken = receiver.takes(redeemed.keys()).await;
    check_order(&taken, &redeemed);
    for got in &taken {
        assert!(got.is_signed_by(&secret), "{got:?}");
        let (one, data) = (&redeemed[&got.redemption_id()], &got.body["data"]);
        assert_eq!(got.body["id"], got.id);
        assert_eq!(data["account_id"], one.account_id);
        assert_eq!(data["request_id"], one.request_id);
        assert_eq!(data["fencing_token"], one.fencing_token);
        assert_eq!(data["pool_id"], POOL);
        let (kind, state) = match one.state() {
            pb::RedemptionState::Failed => ("redemption.failed", "FAILED"),
            _ => ("redemption.succeeded", "SUCCEEDED"),
        };
        assert_eq!((&got.body["type"], &data["state"]), (&kind.into(), &state.into()));
        match &one.amount {
            Some(amount) => assert_eq!(data["amount"]["amount_minor"], amount.amount_minor),
            None => assert_eq!(data["failure"]["reason"], one.failure.as_ref().unwrap().reason),
        }
    }
    // Names in the order of what was recorded: of one account as its tokens rise.
    let mut by_name = taken.clone();
    by_name.sort_by(|a, b| a.id.cmp(&b.id));
    check_order(&by_name, &redeemed);
    assert_eq!(subscription(&mut clients[0]).await.last_error, "");
}

#[tokio::test]
async fn two_servers_do_not_both_deliver() {
    let world = World::with(|_| {}, 2).await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(3).await;
    let receiver = Receiver::start().await;
    subscribe(&mut clients, &receiver).await;
    let mut redeemed = Vec::new();
    for number in 0..20 {
        let code = world.code(&format!("c{number:03}"));
        redeemed.push(redeem(&mut clients, &code, "").await.unwrap().redemption_id);
    }
    let taken = receiver.takes(&redeemed).await;
    assert_eq!(taken.len(), redeemed.len(), "each once, while nothing goes wrong");
}

#[tokio::test]
async fn a_success_that_is_taken_back_is_delivered_again_as_such() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(1).await;
    let receiver = Receiver::start().await;
    subscribe(&mut clients, &receiver).await;
    let redeemed = redeem(&mut clients, &world.code("one1"), "").await.unwrap();
    receiver.takes([&redeemed.redemption_id]).await;
    let ask = pb::ReverseRedemptionRequest {
        pool_id: POOL.to_owned(),
        redemption_id: redeemed.redemption_id.clone(),
        reason: "wrong account".to_owned(),
        reversed_by: "anna".to_owned(),
        outcome: pb::ReversalOutcome::Reversed.into(),
        ..Default::default()
    };
    clients.redemptions.reverse_redemption(ask).await.unwrap();
    let got = receiver.gets(2).await;
    assert_eq!(got[1].body["type"], "redemption.reversed");
    assert!(got[1].body["data"]["reverse_time"].is_string());
    assert!(got[0].id < got[1].id, "another delivery");
    let raw = got[1].body.to_string();
    assert!(!raw.contains("wrong account") && !raw.contains("anna"), "{raw}");
}

#[tokio::test]
async fn a_subscription_begins_where_it_was_told_and_has_the_states_that_it_asks_for() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(2).await;
    let first = redeem(&mut clients, &world.code("one1"), "").await.unwrap();
    let mut watch = Watch::open(&mut clients, "").await.unwrap();
    watch.outcome().await.unwrap();
    let second = redeem(&mut clients, &world.code("two2"), "").await.unwrap();
    let refused = world.code("refu");
    world.fault(&refused, &[Fault::LimitReached]);
    let receivers = [Receiver::start().await, Receiver::start().await, Receiver::start().await];
    let after = ["oldest", &watch.cursor, ""];
    for (number, receiver) in receivers.iter().enumerate() {
        let subscription = pb::Subscription {
            pool_id: POOL.to_owned(),
            subscription_id: format!("{ID}-{number}"),
            url: receiver.url(),
            states: vec![pb::RedemptionState::Succeeded.into()],
            ..Default::default()
        };
        let request = pb::CreateSubscriptionRequest {
            subscription: Some(subscription),
            after: after[number].to_owned(),
        };
        clients.subscriptions.create_subscription(request).await.unwrap();
    }
    redeem(&mut clients, &refused, "").await.unwrap();
    let last = redeem(&mut clients, &world.code("tre3"), "").await.unwrap();
    let ids = [&first.redemption_id, &second.redemption_id, &last.redemption_id];
    for (number, receiver) in receivers.iter().enumerate() {
        let taken = receiver.takes(ids[number..].iter().copied()).await;
        let mut told: Vec<_> = taken.iter().map(|got| got.redemption_id()).collect();
        told.sort_unstable();
        assert_eq!(told.iter().collect::<Vec<_>>(), ids[number..], "{number}");
    }
}

#[tokio::test]
async fn what_is_recorded_while_a_subscription_is_paused_is_sent_when_it_is_resumed() {
    let (proxy, world) = World::proxied(|_, _| {}).await;
    let reads = statement("-- What a server delivers").always();
    let reads = proxy.fault(reads, DatabaseFault::DelayReply(Duration::ZERO));
    let mut clients = world.clients(0).await;
    clients.create_accounts(2).await;
    let receiver = Receiver::start().await;
    subscribe(&mut clients, &receiver).await;
    let first = redeem(&mut clients, &world.code("one1"), "").await.unwrap();
    receiver.takes([&first.redemption_id]).await;
    assert!(update(&mut clients, |it| it.paused = Some(true)).await.paused());
    // A server reads twice a second what it is to deliver: when it asks again, it has read that it is paused.
    let read = reads.matched();
    eventually(LIMIT, "the server has read it", async || {
        (reads.matched() > read + 1).then_some(())
    })
    .await;
    let second = redeem(&mut clients, &world.code("two2"), "").await.unwrap();
    let elsewhere = Receiver::start().await;
    update(&mut clients, |it| {
        it.paused = Some(false);
        it.url = elsewhere.url();
    })
    .await;
    elsewhere.takes([&second.redemption_id]).await;
    assert!(receiver.got().iter().all(|got| got.redemption_id() != second.redemption_id));
}
