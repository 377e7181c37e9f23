//! Fiserv's Commerce Hub.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use hmac::{Hmac, KeyInit as _, Mac as _};
use holdfast_simulator::{Api, faults::Fault, ledger::State};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::Sha256;
use time::OffsetDateTime;

use crate::support::{Told, World, told};

const CHARGES: &str = "/payments/v1/charges";
const INQUIRY: &str = "/payments/v1/transaction-inquiry";
const CANCELS: &str = "/payments/v1/cancels";

pub(crate) fn charge(key: &str, card: &str, total: f64) -> Value {
    json!({
        "amount": {"total": total, "currency": "USD"},
        "source": {"sourceType": "GiftCard", "card": {"cardData": card}},
        "transactionDetails": {"captureFlag": true, "merchantTransactionId": key},
        "merchantDetails": {"merchantId": "m-1"},
    })
}

pub(crate) fn reference(key: &str) -> Value {
    json!({
        "referenceTransactionDetails": {"referenceMerchantTransactionId": key},
        "merchantDetails": {"merchantId": "m-1"},
    })
}

async fn inquire(world: &World, body: &Value) -> Vec<Value> {
    let (status, found) = world.post(INQUIRY, body).await;
    assert_eq!(status, 200);
    found.unwrap().as_array().unwrap().clone()
}

fn state(transaction: &Value) -> &str {
    transaction["gatewayResponse"]["transactionState"].as_str().unwrap()
}

/// The code of an answer's first error.
fn error((status, body): Told) -> (u16, String) {
    (status, body.unwrap()["error"][0]["code"].as_str().unwrap_or_default().to_owned())
}

fn duplicate() -> (u16, String) {
    (409, "DUPLICATE_TRANSACTION".to_owned())
}

#[tokio::test]
async fn a_charge_is_found_by_its_transaction_id_in_an_array() {
    let world = World::with(Api::Fiserv, |args, _| args.default_amount_minor = 1029).await;
    let (status, charged) = world.post(CHARGES, &charge("t-1", "C-1", 10.29)).await;
    let charged = charged.unwrap();
    assert_eq!((status, state(&charged)), (201, "CAPTURED"));
    assert_eq!(
        charged["paymentReceipt"]["approvedAmount"],
        json!({"total": 10.29, "currency": "USD"})
    );
    let found = inquire(&world, &reference("t-1")).await;
    assert_eq!((found.len(), state(&found[0])), (1, "CAPTURED"));
    assert_eq!(found[0]["transactionDetails"]["merchantTransactionId"], "t-1");
    assert_eq!(found[0]["merchantDetails"]["merchantId"], "m-1");
    let id = charged["gatewayResponse"]["transactionProcessingDetails"]["transactionId"].clone();
    let by_id = json!({"referenceTransactionDetails": {"referenceTransactionId": id}});
    assert_eq!(inquire(&world, &by_id).await, found);
    assert!(inquire(&world, &reference("t-2")).await.is_empty());
    let mut of_another = reference("t-1");
    of_another["merchantDetails"]["merchantId"] = json!("m-2");
    assert!(inquire(&world, &of_another).await.is_empty());
    let row = world.rows().pop().unwrap();
    assert_eq!(
        (&*row.key, row.account_ref.as_deref(), row.amount_minor),
        ("t-1", Some("m-1"), 1029)
    );
}

#[tokio::test]
async fn a_transaction_id_that_comes_again_is_refused_whatever_it_asks() {
    let world = World::new(Api::Fiserv).await;
    assert_eq!(world.post(CHARGES, &charge("t-1", "C-1", 10.0)).await.0, 201);
    for card in ["C-1", "C-2"] {
        assert_eq!(error(world.post(CHARGES, &charge("t-1", card, 10.0)).await), duplicate());
    }
    let world = world.killed().await;
    assert_eq!(error(world.post(CHARGES, &charge("t-1", "C-1", 10.0)).await), duplicate());
    assert_eq!(world.rows().len(), 1);
}

#[tokio::test]
async fn after_the_window_it_is_another_charge() {
    let window = |args: &mut holdfast_simulator::SimulatorArgs, _: &std::path::Path| {
        args.duplicate_window = Duration::ZERO;
        args.default_amount_minor = 1500;
    };
    let world = World::with(Api::Fiserv, window).await;
    for total in [10.0, 5.0] {
        assert_eq!(world.post(CHARGES, &charge("t-1", "C-1", total)).await.0, 201);
    }
    let found = inquire(&world, &reference("t-1")).await;
    assert_eq!(found.iter().map(state).collect::<Vec<_>>(), ["CAPTURED", "CAPTURED"]);
    assert_eq!(world.credited().len(), 2, "the harm is in the ledger");
    let world = world.killed().await;
    assert_eq!(inquire(&world, &reference("t-1")).await, found);
}

#[tokio::test]
async fn a_card_without_enough_on_it_is_declined() {
    let world = World::new(Api::Fiserv).await;
    let response = async |key: &str, total| {
        let told = world.post(CHARGES, &charge(key, "C-1", total)).await.1.unwrap();
        let details = &told["paymentReceipt"]["processorResponseDetails"];
        (state(&told).to_owned(), details["responseCode"].as_str().unwrap().to_owned())
    };
    assert_eq!(response("t-1", 10.01).await, ("DECLINED".to_owned(), "NSF".to_owned()));
    assert_eq!(response("t-2", 10.0).await, ("CAPTURED".to_owned(), "000".to_owned()));
    assert_eq!(response("t-3", 10.0).await, ("DECLINED".to_owned(), "NSF".to_owned()));
    let found = inquire(&world, &reference("t-3")).await;
    assert_eq!(state(&found[0]), "DECLINED");
    for total in [10.005, 0.0, -1.0] {
        let refused = world.post(CHARGES, &charge("t-4", "C-2", total)).await;
        assert_eq!(error(refused), (400, "INVALID_REQUEST".to_owned()), "{total}");
    }
    assert_eq!(world.credited().len(), 1);
}

#[tokio::test]
async fn a_cancel_takes_a_success_back_and_the_card_can_be_charged_again() {
    let world = World::new(Api::Fiserv).await;
    let unknown = (404, "TRANSACTION_NOT_FOUND".to_owned());
    assert_eq!(error(world.post(CANCELS, &reference("t-1")).await), unknown);
    world.post(CHARGES, &charge("t-1", "C-1", 10.0)).await;
    for _ in 0..2 {
        let (status, told) = world.post(CANCELS, &reference("t-1")).await;
        assert_eq!((status, state(&told.unwrap())), (201, "VOIDED"));
    }
    let rows = world.rows();
    assert_eq!((rows.len(), rows[1].state), (2, State::Cancelled));
    assert_eq!((rows[1].amount_minor, rows[1].balance_minor), (0, Some(0)));

    let world = world.killed().await;
    assert_eq!(state(&inquire(&world, &reference("t-1")).await[0]), "VOIDED");
    assert_eq!(error(world.post(CHARGES, &charge("t-1", "C-1", 10.0)).await), duplicate());
    assert_eq!(world.post(CHARGES, &charge("t-2", "C-1", 10.0)).await.0, 201);
    assert_eq!(world.rows().last().unwrap().balance_minor, Some(1000));
    // What was declined, or is under way, is not cancelled.
    world.post(CHARGES, &charge("t-3", "C-1", 10.0)).await;
    world.fault(Fault::Slow202);
    world.post(CHARGES, &charge("t-4", "C-4", 10.0)).await;
    for key in ["t-3", "t-4"] {
        assert_eq!(world.post(CANCELS, &reference(key)).await.0, 409, "{key}");
    }
}

#[tokio::test]
async fn a_slow_charge_is_pending_and_goes_on_after_a_restart() {
    let world = World::new(Api::Fiserv).await;
    world.fault(Fault::Slow202);
    let (status, told) = world.post(CHARGES, &charge("t-1", "C-1", 10.0)).await;
    assert_eq!((status, state(&told.unwrap())), (201, "PENDING"));
    let world = world.killed().await;
    let ask = async || world.post(INQUIRY, &reference("t-1")).await;
    world.until("it is captured", ask, |found| state(&found[0]) == "CAPTURED").await;
    assert_eq!(world.credited().len(), 1);
}

/// A charge, signed at a time.
async fn signed(world: &World, secret: &str, at: OffsetDateTime, of: &Value, sent: &Value) -> Told {
    let timestamp = (at.unix_timestamp_nanos() / 1_000_000).to_string();
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(format!("key-1req-1{timestamp}{of}").as_bytes());
    let request = world
        .request(Method::POST, CHARGES)
        .header("api-key", "key-1")
        .header("client-request-id", "req-1")
        .header("timestamp", timestamp)
        .header("authorization", BASE64.encode(mac.finalize().into_bytes()))
        .body(sent.to_string());
    told(request.send().await.unwrap()).await
}

#[tokio::test]
async fn a_request_that_is_not_signed_or_signed_too_long_ago_is_refused() {
    let world = World::with(Api::Fiserv, |args, _| {
        args.api_key = Some("key-1".to_owned());
        args.api_secret = Some("s-1".to_owned());
    })
    .await;
    let body = charge("t-1", "C-1", 10.0);
    let refused = (401, "401".to_owned());
    let now = OffsetDateTime::now_utc();
    for path in [CHARGES, INQUIRY, CANCELS] {
        assert_eq!(error(world.post(path, &body).await), refused, "{path}");
    }
    let minutes = time::Duration::minutes(5) + time::Duration::seconds(2);
    assert_eq!(error(signed(&world, "s-1", now - minutes, &body, &body).await), refused);
    assert_eq!(error(signed(&world, "s-1", now + minutes, &body, &body).await), refused);
    assert_eq!(error(signed(&world, "s-2", now, &body, &body).await), refused);
    let other = charge("t-1", "C-2", 10.0);
    assert_eq!(error(signed(&world, "s-1", now, &body, &other).await), refused);
    assert!(world.rows().is_empty());
    let earlier = now - time::Duration::minutes(4);
    assert_eq!(signed(&world, "s-1", earlier, &body, &body).await.0, 201);
    world.has_the_common_paths().await;
}
