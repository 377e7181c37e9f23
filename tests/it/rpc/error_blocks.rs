//! Errors on the wire: their block of headers fits into the 4 KiB that a proxy reads.

use std::collections::HashMap;

use bytes::Bytes;
use holdfast::rpc::pb;

use crate::support::{
    batch::{Session, opening, said_item},
    raw_http2::{RawClient, block_bytes, framed},
    world::{POOL, World},
};

/// Twelve bad fields and more, with long names of characters that are written as twelve each.
fn bad_selector() -> pb::AccountSelector {
    let key = |n: u32| char::from_u32(0x1f600 + n).unwrap().to_string().repeat(63);
    let labels: HashMap<_, _> = (0..32).map(|n| (key(n), "\0".to_owned())).collect();
    pb::AccountSelector {
        account_id: "\0".to_owned(),
        plan_id: "\0".to_owned(),
        country_code: "\0".to_owned(),
        labels,
        exclude_account_ids: vec!["\0".to_owned(); 1000],
        ..Default::default()
    }
}

#[tokio::test]
async fn no_errors_block_is_larger_than_4_kib_whatever_the_request_held() {
    let world = World::start().await;
    let mut client = RawClient::connect(&world.server(0).addr().to_string(), 65_535).await;
    let acquire = pb::AcquireAccountRequest {
        request_id: "\0".to_owned(),
        holder: "€".repeat(1000),
        selector: Some(bad_selector()),
        ..Default::default()
    };
    // As long as names may be, and of characters that cost the most.
    let name = |char: &str| char.repeat(128);
    let get = |pool_id: String, account_id: String| pb::GetAccountRequest { pool_id, account_id };
    let calls: Vec<(&str, Bytes)> = vec![
        ("/holdfast.v1.RedemptionService/AcquireAccount", framed(&acquire)),
        ("/holdfast.v1.AccountService/GetAccount", framed(&get(POOL.into(), name("a")))),
        ("/holdfast.v1.AccountService/GetAccount", framed(&get(POOL.into(), name("€")))),
        ("/holdfast.v1.AccountService/GetAccount", framed(&get(POOL.into(), name("😀")))),
        ("/holdfast.v1.AccountService/GetAccount", framed(&get(name("p"), name("%")))),
    ];
    for (path, request) in calls {
        let answer = client.call(path, request, true).await.answered().await;
        assert!(answer.headers().contains_key("grpc-status"), "{path} is an error");
        let bytes = block_bytes(answer.headers());
        assert!(bytes < 4096 - 256, "{bytes} bytes for {path}");
    }
}

#[tokio::test]
async fn batch_redeem_bounds_the_errors_in_its_results_too() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    let mut session = Session::open(&mut clients, opening("b")).await.unwrap();
    let item = pb::BatchItem { selector: Some(bad_selector()), ..Default::default() };
    session.items.send(said_item(item)).await.unwrap();
    let result = session.result().await;
    let bytes = prost::Message::encoded_len(&result);
    assert!(bytes < 4096, "{bytes} bytes");
    session.finish().await.unwrap();
}
