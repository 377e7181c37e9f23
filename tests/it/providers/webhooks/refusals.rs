//! What is refused: each by its status, without effect, and without a word.

use std::time::Duration;

use reqwest::StatusCode;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{
    LIMIT, UUID, checks_of, doubt, open_pool, served, settle, shop::Call, shop::Shop, world_of,
};
use crate::support::world::World;

#[tokio::test]
async fn what_is_not_proven_to_be_the_providers_changes_nothing() {
    let world = world_of(&["shop", "other"]).await;
    let (shop, other) = (Shop::open().await, Shop::open().await);
    let mut clients = world.clients(0).await;
    open_pool(&mut clients, &shop.profile("shop", 1, UUID, "2s")).await;
    open_pool(&mut clients, &other.profile("other", 1, UUID, "2s")).await;
    let before = doubt(&world, &clients, "shop").await;
    let key = shop.key_of("account-shop").unwrap();
    let asked = shop.look_ups(&key);
    let good = Call::about_key("shop", &key);
    let nobodys = Call::about_key("shop", "0190163d-8694-739b-aea5-966c26f8ad90");
    assert_eq!(served(&world, 0, &nobodys).await, StatusCode::NO_CONTENT, "unknown, and not told");
    let of_others = Call { path: "other".into(), secret: "hook-of-other".into(), ..good.clone() };
    assert_eq!(served(&world, 0, &of_others).await, StatusCode::NO_CONTENT, "it is not other's");

    let forged = [
        ("another secret", Call { secret: "guess".into(), ..good.clone() }),
        ("another provider's secret", Call { secret: "hook-of-other".into(), ..good.clone() }),
        ("too old", Call { age: 600, ..good.clone() }),
        ("too new", Call { age: -600, ..good.clone() }),
    ];
    for (why, call) in forged {
        assert_eq!(call.make(&world, 0).await, StatusCode::UNAUTHORIZED, "{why}");
    }
    let client = reqwest::Client::new();
    let [time, signature] = good.headers();
    let altered = good.body.replace("data", "date");
    let url = good.url(&world, 0);
    let post = |headers: &[&(&str, String)], body: &str| {
        let mut request = client.post(&url).body(body.to_owned());
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        request.send()
    };
    for (headers, body) in [
        (vec![], &good.body),
        (vec![&time], &good.body),
        (vec![&signature], &good.body),
        (vec![&time, &signature, &signature], &good.body),
        (vec![&time, &time, &signature], &good.body),
        (vec![&time, &signature], &altered),
    ] {
        let answer = post(&headers, body).await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{headers:?}");
        assert!(answer.text().await.unwrap().is_empty());
    }
    assert_eq!(client.get(&url).send().await.unwrap().status(), StatusCode::METHOD_NOT_ALLOWED);
    let elsewhere = Call { path: "nobody".into(), ..good.clone() };
    assert_eq!(elsewhere.make(&world, 0).await, StatusCode::NOT_FOUND);
    let long = Call { body: " ".repeat(65 * 1024), ..good.clone() };
    assert_eq!(long.make(&world, 0).await, StatusCode::PAYLOAD_TOO_LARGE);

    // About other things, or about nothing that can be read: heard, and of no effect.
    for body in ["{}", "no JSON", "", "{\"data\":{\"key\":{}}}", "{\"data\":{\"key\":\"x\"}}"] {
        let call = Call { body: body.into(), ..good.clone() };
        assert_eq!(call.make(&world, 0).await, StatusCode::NO_CONTENT, "{body}");
    }
    let after = checks_of(&mut world.sql().await, "shop").await;
    assert_eq!((after.next_check_at, after.was_claimed), (before.next_check_at, false));
    assert_eq!(shop.look_ups(&key), asked);
    settle(&world, &shop, "shop").await;
}

/// Writes the head of a good call with a body of another kind, then pieces of it until the server answers or closes.
async fn write(world: &World, call: &Call, how: &str, piece: &[u8], pause: Duration) -> String {
    let addr = world.server(0).webhook_addr().unwrap();
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let [time, signature] = call.headers().map(|(name, value)| format!("{name}: {value}\r\n"));
    let path = &call.path;
    let head =
        format!("POST /webhooks/{path} HTTP/1.1\r\nhost: x\r\n{how}\r\n{time}{signature}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut from, mut to) = stream.split();
    let writing = async {
        while to.write_all(piece).await.is_ok() {
            tokio::time::sleep(pause).await;
        }
        std::future::pending::<()>().await;
    };
    let mut answer = vec![0; 12];
    let read = async { from.read_exact(&mut answer).await.map(drop) };
    tokio::select! {
        () = writing => {}
        read = timeout(LIMIT, read) => drop(read.expect("an answer in time")),
    }
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_body_that_is_endless_or_slow_is_read_no_further() {
    let world = world_of(&["shop"]).await;
    let shop = Shop::open().await;
    let mut clients = world.clients(0).await;
    open_pool(&mut clients, &shop.profile("shop", 1, UUID, "2s")).await;
    let call = Call::about_key("shop", "k");
    served(&world, 0, &call).await;
    let chunk = format!("4000\r\n{}\r\n", "x".repeat(0x4000));
    let chunked = "transfer-encoding: chunked";
    let answer = write(&world, &call, chunked, chunk.as_bytes(), Duration::ZERO).await;
    assert_eq!(answer, "HTTP/1.1 413");
    let length = "content-length: 60000";
    let answer = write(&world, &call, length, b"x", Duration::from_millis(100)).await;
    assert_eq!(answer, "HTTP/1.1 408");
}
