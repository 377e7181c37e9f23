//! Square's gift card activities.

use std::{collections::HashSet, fs};

use holdfast_simulator::{Api, faults::Fault};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Told, World, told};

const PATH: &str = "/v2/gift-cards/activities";

pub(crate) fn activity(key: &str, gan: &str, amount: i64) -> Value {
    json!({
        "idempotency_key": key,
        "gift_card_activity": {
            "type": "REDEEM",
            "location_id": "L1",
            "gift_card_gan": gan,
            "redeem_activity_details": {
                "amount_money": {"amount": amount, "currency": "USD"},
                "reference_id": format!("ref-{key}"),
            },
        },
    })
}

async fn list(world: &World, query: &[(&str, &str)]) -> Value {
    let (status, body) = world.get(PATH, query).await;
    assert_eq!(status, 200);
    body.unwrap()
}

async fn inquire(world: &World, gan: &str) -> Told {
    world.post("/v2/gift-cards/from-gan", &json!({"gan": gan})).await
}

/// The code of an answer's first error.
fn error((status, body): Told) -> (u16, String) {
    (status, body.unwrap()["errors"][0]["code"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_key_that_is_repeated_gets_the_first_outcome() {
    let world = World::new(Api::Square).await;
    let first = world.post(PATH, &activity("k-1", "7783-1", 1000)).await;
    assert_eq!(first.0, 200);
    let told = &first.1.as_ref().unwrap()["gift_card_activity"];
    assert_eq!((&told["type"], &told["location_id"]), (&json!("REDEEM"), &json!("L1")));
    assert_eq!(
        (&told["gift_card_gan"], &told["gift_card_balance_money"]["amount"]),
        (&json!("7783-1"), &json!(0))
    );
    let details = &told["redeem_activity_details"];
    assert_eq!(details["amount_money"], json!({"amount": 1000, "currency": "USD"}));
    assert_eq!(
        (&details["reference_id"], &details["status"]),
        (&json!("ref-k-1"), &json!("COMPLETED"))
    );

    assert_eq!(world.post(PATH, &activity("k-1", "7783-1", 1000)).await, first);
    let reused = world.post(PATH, &activity("k-1", "7783-2", 1000)).await;
    assert_eq!(error(reused), (400, "IDEMPOTENCY_KEY_REUSED".to_owned()));
    let row = world.rows().pop().unwrap();
    assert_eq!((&*row.key, row.account_ref.as_deref()), ("k-1", Some("L1")));
    assert_eq!(world.rows().len(), 1);
}

#[tokio::test]
async fn a_refusal_is_repeated_too() {
    let world = World::with(Api::Square, |args, dir| {
        let cards = dir.join("cards.csv");
        fs::write(&cards, "code,amount_minor,currency_code\nA-1,1500,USD\nA-2,1000,CAD\n").unwrap();
        args.cards = Some(cards);
    })
    .await;
    let refused = async |key: &str, gan: &str, amount| {
        error(world.post(PATH, &activity(key, gan, amount)).await)
    };
    for _ in 0..2 {
        assert_eq!(refused("k-1", "A-9", 1000).await, (404, "NOT_FOUND".to_owned()));
        assert_eq!(refused("k-2", "A-2", 1000).await, (400, "CURRENCY_MISMATCH".to_owned()));
        let too_much = (400, "GIFT_CARD_AVAILABLE_AMOUNT".to_owned());
        assert_eq!(refused("k-3", "A-1", 1501).await, too_much);
    }
    assert_eq!(world.rows().len(), 3);
    // A card keeps what was not taken, and another key takes from it again.
    assert_eq!(world.post(PATH, &activity("k-4", "A-1", 1000)).await.0, 200);
    let card = inquire(&world, "A-1").await.1.unwrap();
    assert_eq!(card["gift_card"]["balance_money"], json!({"amount": 500, "currency": "USD"}));
    assert_eq!(world.post(PATH, &activity("k-5", "A-1", 500)).await.0, 200);
    assert_eq!(refused("k-6", "A-1", 1).await, (400, "INSUFFICIENT_FUNDS".to_owned()));
    assert_eq!(world.credited().len(), 2);
    assert_eq!(error(inquire(&world, "A-9").await), (404, "NOT_FOUND".to_owned()));
    assert_eq!(world.simulator.inquiries(), 2);
}

#[tokio::test]
async fn activities_are_listed_in_pages_the_newest_first() {
    let world = World::new(Api::Square).await;
    assert_eq!(list(&world, &[]).await, json!({}), "an empty list is left out");
    for n in 0..7 {
        world.post(PATH, &activity(&format!("k-{n}"), &format!("G-{n}"), 1000)).await;
    }
    world.fault(Fault::LoginInvalid);
    let refused = world.post(PATH, &activity("k-7", "G-7", 1000)).await;
    assert_eq!(error(refused), (400, "LOCATION_MISMATCH".to_owned()));
    let (mut cursor, mut seen, mut pages) = (String::new(), Vec::new(), 0);
    loop {
        let query =
            [("type", "REDEEM"), ("location_id", "L1"), ("limit", "3"), ("cursor", &*cursor)];
        let page = list(&world, &query).await;
        for activity in page["gift_card_activities"].as_array().unwrap() {
            let details = &activity["redeem_activity_details"];
            seen.push(details["reference_id"].as_str().unwrap().to_owned());
        }
        pages += 1;
        // What is added meanwhile moves no page.
        world.post(PATH, &activity(&format!("new-{pages}"), &format!("N-{pages}"), 1000)).await;
        match page["cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(pages, 3);
    assert_eq!(seen, (0..7).rev().map(|n| format!("ref-k-{n}")).collect::<Vec<_>>());
    let ids: HashSet<String> = seen.into_iter().collect();
    assert_eq!(ids.len(), 7);
    assert_eq!(list(&world, &[("location_id", "L2")]).await, json!({}));
    assert_eq!(list(&world, &[("type", "LOAD")]).await, json!({}));
    assert_eq!(world.get(PATH, &[("cursor", "not one")]).await.0, 400);
}

#[tokio::test]
async fn a_slow_activity_is_pending_until_it_is_completed() {
    let world = World::new(Api::Square).await;
    world.fault(Fault::Slow202);
    let told = world.post(PATH, &activity("k-1", "G-1", 1000)).await.1.unwrap();
    let status = |activity: &Value| activity["redeem_activity_details"]["status"].clone();
    assert_eq!(status(&told["gift_card_activity"]), "PENDING");
    let done = |body: &Value| status(&body["gift_card_activities"][0]) == "COMPLETED";
    world.until("it is completed", async || world.get(PATH, &[]).await, done).await;
    let again = world.post(PATH, &activity("k-1", "G-1", 1000)).await.1.unwrap();
    assert_eq!(status(&again["gift_card_activity"]), "COMPLETED");
    assert_eq!(world.credited().len(), 1);
}

#[tokio::test]
async fn a_caller_without_the_token_is_refused_and_nothing_is_begun() {
    let world = World::with(Api::Square, |args, _| args.api_key = Some("tok".to_owned())).await;
    for given in [None, Some("Bearer other"), Some("tok")] {
        let post = world.request(Method::POST, PATH).json(&activity("k-1", "G-1", 1000));
        let from_gan =
            world.request(Method::POST, "/v2/gift-cards/from-gan").json(&json!({"gan": "G-1"}));
        for request in [post, from_gan, world.request(Method::GET, PATH)] {
            let request = match given {
                Some(given) => request.header("authorization", given),
                None => request,
            };
            let refused = told(request.send().await.unwrap()).await;
            assert_eq!(error(refused), (401, "UNAUTHORIZED".to_owned()));
        }
    }
    assert!(world.rows().is_empty());
    let post = world.request(Method::POST, PATH).json(&activity("k-1", "G-1", 1000));
    assert_eq!(post.bearer_auth("tok").send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_restart_keeps_keys_activities_and_balances() {
    let world = World::new(Api::Square).await;
    let first = world.post(PATH, &activity("k-1", "G-1", 400)).await;
    world.fault(Fault::Slow202);
    world.post(PATH, &activity("k-2", "G-2", 1000)).await;
    let text = fs::read_to_string(world.ledger()).unwrap();
    assert!(!text.contains("G-1"), "a code is in the ledger in clear");

    let world = world.killed().await;
    assert_eq!(world.post(PATH, &activity("k-1", "G-1", 400)).await, first);
    let card = inquire(&world, "G-1").await.1.unwrap();
    assert_eq!(card["gift_card"]["balance_money"]["amount"], 600);
    let all = async || world.get(PATH, &[]).await;
    let done = |body: &Value| {
        let activities = body["gift_card_activities"].as_array().unwrap();
        let told = |n: usize, status| activities[n]["redeem_activity_details"]["status"] == status;
        activities.len() == 2 && told(0, "COMPLETED") && told(1, "COMPLETED")
    };
    world.until("it goes on", all, done).await;
}

#[tokio::test]
async fn an_inquiry_can_fail_and_other_requests_are_invalid() {
    let world = World::new(Api::Square).await;
    let mut activation = activity("k-1", "G-1", 1000);
    activation["gift_card_activity"]["type"] = json!("ACTIVATE");
    for body in [json!({}), activation, activity("", "G-1", 1000), activity("k-1", "G-1", 0)] {
        assert_eq!(world.post(PATH, &body).await.0, 400, "{body}");
    }
    assert!(world.rows().is_empty());
    let faults = serde_json::from_value(json!({"inquire_error": 100.0})).unwrap();
    world.set(faults);
    assert_eq!(inquire(&world, "G-1").await.0, 500);
    world.has_the_common_paths().await;
}
