//! Receivers and servers that are away.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use super::{
    LIMIT, check_order, deliveries,
    receiver::{Answer, Receiver},
    subscribe, subscription, update,
};
use crate::{
    support::{
        fleet::{Able, Fleet, Setup},
        wait::eventually,
        world::{Clients, POOL, World},
    },
    watch::redeem,
};

async fn fails(clients: &mut Clients) {
    eventually(LIMIT, "the receiver is known to take nothing", async || {
        subscription(clients).await.failing_since.map(drop)
    })
    .await;
}

async fn redeem_some(
    world: &World,
    clients: &mut Clients,
    name: &str,
    count: usize,
) -> HashMap<String, holdfast::rpc::pb::Redemption> {
    let mut redeemed = HashMap::new();
    for number in 0..count {
        let code = world.code(&format!("{name}{number:03}"));
        let one = redeem(clients, &code, "").await.unwrap();
        redeemed.insert(one.redemption_id.clone(), one);
    }
    redeemed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_was_down_gets_all_that_it_missed_in_order() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(5).await;
    let mut receiver = Receiver::start().await;
    let secret = subscribe(&mut clients, &receiver).await;
    let mut redeemed = redeem_some(&world, &mut clients, "a", 5).await;
    receiver.takes(redeemed.keys()).await;
    receiver.go_away().await;
    // More than a server has in memory.
    redeemed.extend(redeem_some(&world, &mut clients, "b", 130).await);
    fails(&mut clients).await;
    let kept = deliveries(&mut clients).await;
    assert!(kept.is_empty(), "no row of each: they wait behind the cursor: {kept:?}");
    assert_ne!(subscription(&mut clients).await.last_error, "");
    receiver.come_back().await;
    let taken = receiver.takes(redeemed.keys()).await;
    check_order(&taken, &redeemed);
    assert!(taken.iter().all(|got| got.is_signed_by(&secret)));
    eventually(LIMIT, "it is well again", async || {
        let now = subscription(&mut clients).await;
        (now.failing_since.is_none() && now.last_error.is_empty()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_fails_at_everything_is_tried_with_one_at_a_time() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(5).await;
    let receiver = Receiver::start().await;
    receiver.answer(|_| Answer::Status(500));
    subscribe(&mut clients, &receiver).await;
    let redeemed = redeem_some(&world, &mut clients, "a", 40).await;
    fails(&mut clients).await;
    let begun = Instant::now();
    let before = receiver.got().len();
    receiver.gets(before + 4).await;
    // The pauses are 50, 100, 200 and 400 ms: not one POST for each outcome.
    let more = u128::try_from(receiver.got().len() - before).unwrap();
    let most = begun.elapsed().as_millis() / 50 + 4;
    assert!(more <= most && more < 40, "{more} POSTs in {:?}", begun.elapsed());
    assert!(deliveries(&mut clients).await.is_empty());
    let told = subscription(&mut clients).await;
    assert!(told.last_error.contains("HTTP 500") && told.next_try_time.is_some(), "{told:?}");
    receiver.answer(|_| Answer::Status(200));
    let taken = receiver.takes(redeemed.keys()).await;
    check_order(&taken, &redeemed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_answers_redirects_and_refusals_are_not_taken_and_huge_answers_do_no_harm() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(2).await;
    let elsewhere = Receiver::start().await;
    let receiver = Receiver::start().await;
    let (url, mut step) = (elsewhere.url(), 0);
    receiver.answer(move |_| {
        step += 1;
        match step {
            1 => Answer::Silence,
            2 => Answer::With(302, "location", url.clone()),
            3 => Answer::With(503, "retry-after", "0".to_owned()),
            4 => Answer::Huge(500, 8 << 20),
            _ => Answer::Huge(200, 8 << 20),
        }
    });
    subscribe(&mut clients, &receiver).await;
    let redeemed = redeem_some(&world, &mut clients, "a", 1).await;
    receiver.takes(redeemed.keys()).await;
    let got = receiver.got();
    let told: Vec<_> = got.iter().map(|got| got.status).collect();
    assert_eq!(told, [0, 302, 503, 500, 200], "nothing is repeated that was taken");
    assert!(got.iter().all(|it| it.id == got[0].id), "one name at every try");
    assert!(elsewhere.got().is_empty(), "a redirect is not followed");
}

#[tokio::test]
async fn a_receiver_that_asks_for_a_pause_gets_it() {
    let world = World::with(|args| args.delivery.longest_pause = Duration::from_secs(60), 1).await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(2).await;
    let receiver = Receiver::start().await;
    let mut step = 0;
    receiver.answer(move |_| {
        step += 1;
        if step == 1 {
            Answer::With(429, "retry-after", "2".to_owned())
        } else {
            Answer::Status(200)
        }
    });
    subscribe(&mut clients, &receiver).await;
    let begun = Instant::now();
    let redeemed = redeem_some(&world, &mut clients, "a", 4).await;
    receiver.takes(redeemed.keys()).await;
    assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_receiver_that_is_gone_for_good_pauses_its_subscription() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(2).await;
    let receiver = Receiver::start().await;
    receiver.answer(|_| Answer::Status(410));
    subscribe(&mut clients, &receiver).await;
    let redeemed = redeem_some(&world, &mut clients, "a", 3).await;
    let told = eventually(LIMIT, "it is paused", async || {
        let now = subscription(&mut clients).await;
        now.paused().then_some(now)
    })
    .await;
    assert!(told.last_error.contains("410"), "{told:?}");
    receiver.answer(|_| Answer::Status(200));
    update(&mut clients, |it| it.paused = Some(false)).await;
    receiver.takes(redeemed.keys()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_lets_another_go_on_at_once() {
    let mut world = World::with(|_| {}, 2).await;
    let (mut first, mut second) = (world.clients(0).await, world.clients(1).await);
    first.create_accounts(3).await;
    let receiver = Receiver::start().await;
    subscribe(&mut first, &receiver).await;
    let mut redeemed = redeem_some(&world, &mut second, "a", 4).await;
    receiver.takes(redeemed.keys()).await;
    drop(first);
    world.take_server(0).stop().await.unwrap();
    redeemed.extend(redeem_some(&world, &mut second, "b", 4).await);
    let taken = receiver.takes(redeemed.keys()).await;
    check_order(&taken, &redeemed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_missed_through_kills_and_an_outage_of_the_receiver() {
    let able = Able { deduplicates: true, looks_up: true, cancels: true };
    let serve = ["--delivery-first-pause=50ms", "--delivery-longest-pause=400ms"];
    let serve = serve.map(str::to_owned).to_vec();
    let mut fleet = Fleet::start(Setup { able, serve, provider: Vec::new() }).await;
    for _ in 0..2 {
        fleet.start_server(&[]).await;
    }
    let mut clients = fleet.clients(0);
    clients.create_pool(POOL).await;
    clients.create_accounts(3).await;
    let mut receiver = Receiver::start().await;
    subscribe(&mut clients, &receiver).await;
    let mut redeemed = HashMap::new();
    for round in 0..4 {
        let mut clients = fleet.clients((round + 1) % 2);
        for number in 0..10 {
            let code = fleet.code(&format!("R{round}N{number}"));
            let one = redeem(&mut clients, &code, "").await.unwrap();
            redeemed.insert(one.redemption_id.clone(), one);
        }
        if round == 1 {
            receiver.go_away().await;
        }
        fleet.servers[round % 2].kill();
        if round == 2 {
            receiver.come_back().await;
        }
        // The other one takes over, before this one is back.
        if round != 1 {
            let begun = Instant::now();
            receiver.takes(redeemed.keys()).await;
            assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        }
        fleet.restart_server(round % 2).await;
    }
    let taken = receiver.takes(redeemed.keys()).await;
    check_order(&taken, &redeemed);
    let ids: HashSet<_> = taken.iter().map(|got| got.id.clone()).collect();
    assert_eq!(ids.len(), redeemed.len(), "what comes twice has the same name");
    let broken = fleet.finish().await;
    assert!(broken.is_empty(), "{broken:?}");
}
