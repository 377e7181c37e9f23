//! `BatchRedeem`: items whose card was not spent, which are redeemed again when their batch is opened again.

use std::time::Duration;

use holdfast::{rpc::pb, simulator::faults::Faults};

use super::reopened::{items, listed};
use crate::support::{
    batch::{Session, begun, credited, item, opening, run},
    fleet::{Able, Fleet, Setup},
    proxy::{
        Proxy,
        postgres::{Fault, Postgres, statement},
    },
    wait::eventually,
    world::{Clients, POOL, World, eur, fresh_database, lease},
};

const LIMIT: Duration = Duration::from_secs(30);

fn busy() -> Faults {
    Faults { busy: 100.0, ..Faults::default() }
}

async fn by_request(clients: &mut Clients, request_id: &str) -> pb::Redemption {
    let request = pb::GetRedemptionRequest {
        pool_id: POOL.to_owned(),
        request_id: request_id.to_owned(),
        ..Default::default()
    };
    clients.redemptions.get_redemption(request).await.unwrap().into_inner().redemption.unwrap()
}

#[tokio::test]
async fn batch_redeem_opened_again_redeems_a_card_that_was_not_spent_as_another_attempt() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(2).await;
    let items = items(&world, 1);
    world.set_faults(busy());
    let first = run(&mut clients, opening("b"), &items).await.unwrap();
    let failed = begun(&first.results[0]).unwrap();
    let failure = failed.failure.as_ref().unwrap();
    assert_eq!((&*failure.reason, failure.code_spent), ("PROVIDER_BUSY", false));
    assert!(failure.retryable && !first.results[0].replayed);
    assert_eq!((first.summary.failed, first.summary.retryable), (1, 1));
    assert_eq!(failed.attempt, 1);
    let again = run(&mut clients, opening("b"), &items).await.unwrap();
    let second = begun(&again.results[0]).unwrap();
    assert_eq!((second.attempt, second.state()), (2, pb::RedemptionState::Failed));

    world.set_faults(Faults::default());
    let third = run(&mut clients, opening("b"), &items).await.unwrap();
    let done = credited(&third.results[0]);
    assert!(!third.results[0].replayed && done.failure.is_none());
    assert_eq!((done.attempt, &done.request_id), (3, &failed.request_id));
    assert_eq!((third.summary.succeeded, third.summary.retryable), (1, 0));
    // Each attempt stays what it was, and the request is the newest one.
    let listed = listed(&mut clients, "b").await;
    assert_eq!(listed, [failed.clone(), second.clone(), done.clone()]);
    assert_eq!(by_request(&mut clients, &done.request_id).await, *done);
    let fourth = run(&mut clients, opening("b"), &items).await.unwrap();
    assert_eq!(credited(&fourth.results[0]), done);
    assert!(fourth.results[0].replayed);
}

#[tokio::test]
async fn an_item_that_failed_because_of_its_card_stays_failed() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(1).await;
    let code = world.code("spent");
    let spent = pb::BatchItem { expected: Some(eur(1000)), ..item("spent", &code) };
    // At the provider, for an account of another pool.
    clients.create_pool("other").await;
    clients.create_account("b", |account| account.pool_id = "other".into()).await;
    let other = lease(&clients.acquire(|r| r.pool_id = "other".into()).await.unwrap());
    clients.redeem(&other, &code, |r| r.release_on_completion = true).await.unwrap();
    let first = run(&mut clients, opening("b"), std::slice::from_ref(&spent)).await.unwrap();
    let failed = begun(&first.results[0]).unwrap();
    let failure = failed.failure.as_ref().unwrap();
    assert_eq!((&*failure.reason, failure.code_spent), ("CODE_USED", true));
    assert!(!failure.retryable);
    assert_eq!((first.summary.failed, first.summary.retryable), (1, 0));
    let again = run(&mut clients, opening("b"), &[spent]).await.unwrap();
    assert_eq!(begun(&again.results[0]), Some(failed));
    assert!(again.results[0].replayed);
}

#[tokio::test]
async fn redeem_repeats_the_failure_of_its_request_whatever_the_card() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(1).await;
    let code = world.code("busy");
    world.set_faults(busy());
    let held = lease(&clients.acquire(|_| {}).await.unwrap());
    let named = |request: &mut pb::RedeemRequest| request.request_id = "once".to_owned();
    let first = clients.redeem(&held, &code, named).await.unwrap().redemption.unwrap();
    assert!(first.failure.as_ref().unwrap().retryable);
    world.set_faults(Faults::default());
    let again = clients.redeem(&held, &code, named).await.unwrap();
    assert!(again.replayed);
    assert_eq!(again.redemption.unwrap(), first);
}

#[tokio::test]
async fn two_openings_at_a_time_make_one_new_attempt() {
    let world = World::with(|_| {}, 2).await;
    let mut here = world.clients(0).await;
    let mut there = world.clients(1).await;
    here.create_accounts(5).await;
    let items = items(&world, 10);
    world.set_faults(busy());
    let first = run(&mut here, opening("b"), &items).await.unwrap();
    assert_eq!(first.summary.retryable, 10);
    world.set_faults(Faults::default());
    let (one, two) =
        tokio::join!(run(&mut here, opening("b"), &items), run(&mut there, opening("b"), &items));
    let (one, two) = (one.unwrap(), two.unwrap());
    let (one, two) = (one.by_item(), two.by_item());
    for (item_id, result) in &one {
        let done = credited(result);
        assert_eq!((done, done.attempt), (credited(two[item_id]), 2));
        assert!(result.replayed != two[item_id].replayed, "one of the two began {item_id}");
    }
    assert_eq!(listed(&mut here, "b").await.len(), 20);
}

/// A provider that can be asked nothing, so that a person has to say.
fn silent() -> Setup {
    let able = Able { deduplicates: false, looks_up: false, cancels: false };
    Setup { able, serve: Vec::new(), provider: Vec::new() }
}

/// A first server that stands still with the provider's answer to a card of the batch `b` in its hands, and a second one
/// at which a person has said that the card failed.
async fn failed_by_a_person(fleet: &mut Fleet) -> (Session, Clients, pb::BatchItem, String) {
    fleet.start_server(&[("HOLDFAST_CRASH_POINTS", "settle.before=stop")]).await;
    let mut first = fleet.clients(0);
    first.create_pool(POOL).await;
    first.create_accounts(2).await;
    let code = fleet.code("LATE");
    let late = pb::BatchItem { expected: Some(eur(1000)), ..item("late", &code) };
    let session = Session::open(&mut first, opening("b")).await.unwrap();
    session.send(late.clone()).await;
    eventually(LIMIT, "the server stands still", async || fleet.first_is_gone().then_some(()))
        .await;
    fleet.start_server(&[]).await;
    let mut second = fleet.clients(1);
    let in_review = eventually(LIMIT, "it is left to a person", async || {
        let listed = listed(&mut second, "b").await;
        listed.into_iter().find(|r| r.state() == pb::RedemptionState::NeedsReview)
    })
    .await;
    let request = pb::ResolveRedemptionRequest {
        pool_id: POOL.to_owned(),
        redemption_id: in_review.redemption_id.clone(),
        state: pb::RedemptionState::Failed.into(),
        reason: "nobody knew better".to_owned(),
        resolved_by: "a person".to_owned(),
        ..Default::default()
    };
    let failed = second.redemptions.resolve_redemption(request).await.unwrap().into_inner();
    assert!(failed.redemption.unwrap().failure.unwrap().retryable);
    (session, second, late, in_review.redemption_id)
}

/// Lets the first server go on, until what it was told is recorded.
async fn is_credited_late(fleet: &Fleet, clients: &mut Clients, redemption_id: &str) {
    fleet.servers[0].go_on();
    eventually(LIMIT, "the late answer is recorded", async || {
        let first = clients.redemption(redemption_id).await;
        (first.state() == pb::RedemptionState::Succeeded).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_that_is_credited_while_the_next_is_recorded_is_the_outcome_of_its_item() {
    let database = fresh_database().await;
    let db_url = database.url.clone();
    let proxy = Proxy::<Postgres>::before(&db_url);
    let mut fleet = Fleet::over(silent(), proxy.url(&db_url), Some(database)).await;
    let (session, mut second, late, redemption_id) = failed_by_a_person(&mut fleet).await;
    let begins = proxy.fault(statement("-- Begin:"), Fault::DelayRequest(Duration::from_secs(5)));
    let again = tokio::spawn({
        let mut clients = second.clone();
        async move { run(&mut clients, opening("b"), &[late]).await }
    });
    eventually(LIMIT, "the next attempt is on its way", async || {
        (begins.matched() == 1).then_some(())
    })
    .await;
    is_credited_late(&fleet, &mut second, &redemption_id).await;
    assert_eq!(begins.times(), 0, "the next attempt is on its way still");
    let again = again.await.unwrap().unwrap();
    let credited = credited(&again.results[0]);
    assert_eq!((&credited.redemption_id, credited.attempt), (&redemption_id, 1));
    assert!(again.results[0].replayed);
    assert_eq!(listed(&mut second, "b").await.len(), 1);
    drop(session);
    assert!(fleet.finish().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_that_is_credited_after_the_next_one_failed_is_the_outcome_of_its_item() {
    let mut fleet = Fleet::start(silent()).await;
    let (session, mut second, late, redemption_id) = failed_by_a_person(&mut fleet).await;
    // The provider has spent the card already.
    let again = run(&mut second, opening("b"), std::slice::from_ref(&late)).await.unwrap();
    let next = begun(&again.results[0]).unwrap();
    assert_eq!((next.state(), next.attempt), (pb::RedemptionState::Failed, 2));
    is_credited_late(&fleet, &mut second, &redemption_id).await;
    let again = run(&mut second, opening("b"), &[late]).await.unwrap();
    assert_eq!(credited(&again.results[0]).redemption_id, redemption_id);
    assert!(again.results[0].replayed);
    let request_id = credited(&again.results[0]).request_id.clone();
    assert_eq!(by_request(&mut second, &request_id).await.redemption_id, redemption_id);
    assert_eq!(listed(&mut second, "b").await.len(), 2);
    drop(session);
    assert!(fleet.finish().await.is_empty());
}
