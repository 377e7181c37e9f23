//! `BatchRedeem`: batches that are opened again, and clients and servers that go away.

use std::time::Duration;

use holdfast::{
    rpc::pb::{self, batch_redeem_response::Message as Told},
    simulator::faults::{Fault, Faults},
};
use tonic::Code;

use crate::support::{
    batch::{Ended, Session, begun, credited, item, opening, refusal, run},
    wait::eventually,
    world::{Clients, POOL, World, eur, metadata, reason, seconds},
};

pub(super) fn items(world: &World, count: usize) -> Vec<pb::BatchItem> {
    (0..count).map(|n| item(&format!("i-{n:02}"), &world.code(&format!("card-{n:02}")))).collect()
}

fn slow(latency: &str) -> Faults {
    Faults { latency: latency.parse().unwrap(), ..Faults::default() }
}

/// All redemptions of a batch, oldest first.
pub(super) async fn listed(clients: &mut Clients, batch_id: &str) -> Vec<pb::Redemption> {
    let request = pb::ListRedemptionsRequest {
        pool_id: POOL.to_owned(),
        page_size: 1000,
        batch_id: batch_id.to_owned(),
        ..Default::default()
    };
    let reply = clients.redemptions.list_redemptions(request).await.unwrap().into_inner();
    assert_eq!(reply.next_page_token, "");
    reply.redemptions.into_iter().rev().collect()
}

async fn count(world: &World, state: &str) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM redemptions WHERE state = $1")
        .bind(state)
        .fetch_one(&mut world.sql().await)
        .await
        .unwrap()
}

/// Every item has one credit, and the results that were known before are the same ones still.
fn check_whole(ended: &Ended, items: &[pb::BatchItem], known: &[pb::Redemption]) {
    let results = ended.by_item();
    assert_eq!(results.len(), items.len());
    for sent in items {
        let result = results[&sent.item_id];
        let request_id = credited(result).request_id.clone();
        let before = known.iter().find(|known| known.request_id == request_id);
        assert_eq!(result.replayed, before.is_some(), "{result:?}");
        if let Some(before) = before {
            assert_eq!(before.redemption_id, credited(result).redemption_id);
        }
    }
}

#[tokio::test]
async fn batch_redeem_opened_again_replays_what_is_recorded_and_redeems_the_rest() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(3).await;
    let items = items(&world, 9);
    let first = run(&mut clients, opening("b"), &items[..5]).await.unwrap();
    let known: Vec<_> = first.results.iter().map(|result| credited(result).clone()).collect();

    let again = run(&mut clients, opening("b"), &items).await.unwrap();
    check_whole(&again, &items, &known);
    let third = run(&mut clients, opening("b"), &items).await.unwrap();
    check_whole(&third, &items, &listed(&mut clients, "b").await);
    assert_eq!(listed(&mut clients, "b").await.len(), 9);

    let elsewhere = run(&mut clients, opening("b2"), &items[..1]).await.unwrap();
    let error = refusal(&elsewhere.results[0]);
    assert_eq!(reason(&error), "CODE_IN_USE", "another batch is another request");
}

#[tokio::test]
async fn an_item_that_is_sent_twice_in_one_opening_is_redeemed_once() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(2).await;
    let twice = item("same", &world.code("same"));
    let ended = run(&mut clients, opening("b"), &[twice.clone(), twice]).await.unwrap();
    let [one, two] = &ended.results[..] else { panic!("{:?}", ended.results) };
    assert_eq!(credited(one), credited(two));
    assert!(one.replayed != two.replayed, "one of them began it");
}

#[tokio::test]
async fn request_id_reused_refuses_an_item_that_comes_back_as_another() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(2).await;
    let first = item("i", &world.code("first"));
    run(&mut clients, opening("b"), std::slice::from_ref(&first)).await.unwrap();

    let other_code = item("i", &world.code("other"));
    let other_amount = pb::BatchItem { expected: Some(eur(1000)), ..first };
    for (changed, field) in [(other_code, "code"), (other_amount, "expected")] {
        let ended = run(&mut clients, opening("b"), &[changed]).await.unwrap();
        let error = refusal(&ended.results[0]);
        assert_eq!((error.code(), &*reason(&error)), (Code::AlreadyExists, "REQUEST_ID_REUSED"));
        assert_eq!(metadata(&error, "fields"), field);
    }
    assert_eq!(listed(&mut clients, "b").await.len(), 1);
}

#[tokio::test]
async fn a_client_that_goes_away_loses_nothing() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(4).await;
    world.set_faults(slow("600ms"));
    let items = items(&world, 8);
    let open = || pb::BatchOpen { max_in_flight: 4, ..opening("b") };
    let session = Session::open(&mut clients, open()).await.unwrap();
    for item in &items {
        session.send(item.clone()).await;
    }
    let four = "four redemptions are under way";
    eventually(Duration::from_secs(10), four, async || {
        (count(&world, "SUBMITTED").await == 4).then_some(())
    })
    .await;
    drop(session);

    let finished = "what was begun is finished, and the accounts are given back";
    eventually(Duration::from_secs(20), finished, async || {
        let locked: i64 =
            sqlx::query_scalar("SELECT count(*) FROM accounts WHERE status = 'LOCKING'")
                .fetch_one(&mut world.sql().await)
                .await
                .unwrap();
        (locked == 0).then_some(())
    })
    .await;
    world.set_faults(Faults::default());
    let known = listed(&mut clients, "b").await;
    assert!(known.len() >= 4, "{known:?}");
    for redemption in &known {
        assert_eq!(redemption.state(), pb::RedemptionState::Succeeded, "{redemption:?}");
    }

    let again = run(&mut clients, open(), &items).await.unwrap();
    check_whole(&again, &items, &known);
    assert_eq!(listed(&mut clients, "b").await.len(), 8);
}

#[tokio::test]
async fn two_clients_with_the_same_batch_credit_each_card_once() {
    let world = World::with(|_| {}, 2).await;
    let mut here = world.clients(0).await;
    let mut there = world.clients(1).await;
    here.create_accounts(5).await;
    let items = items(&world, 20);
    let (one, two) =
        tokio::join!(run(&mut here, opening("b"), &items), run(&mut there, opening("b"), &items));
    let (one, two) = (one.unwrap(), two.unwrap());
    let (one, two) = (one.by_item(), two.by_item());
    assert_eq!((one.len(), two.len()), (20, 20));
    for (item_id, result) in &one {
        let other = two[item_id];
        assert_eq!(credited(result).redemption_id, credited(other).redemption_id);
        assert!(result.replayed != other.replayed, "one of the two began {item_id}");
    }
    assert_eq!(listed(&mut here, "b").await.len(), 20);
}

#[tokio::test]
async fn a_batch_whose_server_stops_is_completed_by_another() {
    let mut world = World::with(|_| {}, 2).await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(4).await;
    world.set_faults(slow("500ms"));
    let items = items(&world, 10);
    let open = || pb::BatchOpen { max_in_flight: 2, ..opening("b") };
    let mut session = Session::open(&mut clients, open()).await.unwrap();
    for item in &items {
        session.send(item.clone()).await;
    }
    let mut results = vec![session.result().await];
    let server = world.take_server(0);
    let stopper = server.stopper();
    let stopped = tokio::spawn(server.stopped());
    stopper.cancel();
    let error = loop {
        match session.next().await {
            Ok(Some(Told::Result(result))) => results.push(result),
            Ok(Some(Told::Progress(_))) => {}
            Ok(end) => panic!("{end:?}"),
            Err(error) => break error,
        }
    };
    assert_eq!((error.code(), &*reason(&error)), (Code::Unavailable, "SHUTTING_DOWN"));
    stopped.await.unwrap().unwrap();
    for result in &results {
        assert!(begun(result).is_some() || reason(&refusal(result)) == "SHUTTING_DOWN");
    }
    let count = results.iter().filter(|result| begun(result).is_some()).count();
    assert!(count > 0);
    assert_eq!(metadata(&error, "begun"), count.to_string(), "{error:?}");
    assert_eq!(metadata(&error, "received"), results.len().to_string(), "{error:?}");
    assert!(error.message().contains(&format!("{count} were begun")), "{error:?}");
    assert!(results.len() < items.len(), "it stopped in the middle");

    world.set_faults(Faults::default());
    let mut clients = world.clients(0).await;
    let known = listed(&mut clients, "b").await;
    for result in results.iter().filter_map(begun) {
        assert!(known.contains(result), "{result:?}");
    }
    let again = run(&mut clients, open(), &items).await.unwrap();
    check_whole(&again, &items, &known);
}

#[tokio::test]
async fn recorded_outcomes_are_replayed_when_no_account_has_room_any_more() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_plan("plan", 1000).await;
    clients.create_account("a", |account| account.plan_id = "plan".into()).await;
    let items = items(&world, 2);
    let open = || pb::BatchOpen { item_timeout: seconds(1.0), ..opening("b") };
    let first = run(&mut clients, open(), &items[..1]).await.unwrap();
    let known = credited(&first.results[0]).clone();
    assert_eq!(clients.status_of("a").await, pb::AccountStatus::Completed);

    let again = run(&mut clients, open(), &items).await.unwrap();
    let results = again.by_item();
    assert_eq!(*credited(results["i-00"]), known);
    assert!(results["i-00"].replayed);
    let error = refusal(results["i-01"]);
    assert_eq!(reason(&error), "NO_ACCOUNT_AVAILABLE");
    assert_eq!(metadata(&error, "completed"), "1");
}

#[tokio::test]
async fn an_item_in_doubt_is_told_as_such_and_later_as_what_became_of_it() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(3).await;
    let items = items(&world, 3);
    let rules = Faults::of_card(&items[1].code, &[Fault::ErrorAfterApply]);
    world.set_faults(Faults { rules, lookup_error: 100.0, ..Faults::default() });
    let first = run(&mut clients, opening("b"), &items).await.unwrap();
    let results = first.by_item();
    let doubtful = begun(results["i-01"]).unwrap();
    assert_eq!(doubtful.state(), pb::RedemptionState::InDoubt);
    assert_eq!((first.summary.succeeded, first.summary.in_doubt), (2, 1));
    let locked = clients.account(&doubtful.account_id).await;
    assert_eq!(locked.open_redemption_id, doubtful.redemption_id);

    world.set_faults(Faults::default());
    eventually(Duration::from_secs(30), "the reconciler settles it", async || {
        let redemption = clients.redemption(&doubtful.redemption_id).await;
        (redemption.state() == pb::RedemptionState::Succeeded).then_some(())
    })
    .await;
    let again = run(&mut clients, opening("b"), &items).await.unwrap();
    check_whole(&again, &items, &listed(&mut clients, "b").await);
    assert_eq!(clients.status_of(&doubtful.account_id).await, pb::AccountStatus::Processing);
}
