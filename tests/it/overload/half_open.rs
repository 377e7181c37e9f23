//! Clients that begin something and do not go on with it: they keep nobody out, and their connections are
//! closed.

use std::time::Duration;

use bytes::Bytes;
use holdfast::rpc::pb;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tonic::Code;

use crate::support::{
    batch::{Session, credited, item, opening},
    raw_http2::{RawCall, RawClient, begun, framed},
    world::{POOL, World, lease, reason},
};

/// Longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(60);
const EACH: usize = 2500;

const KINDS: [&str; 5] = [
    "/holdfast.v1.RedemptionService/Redeem",
    "/holdfast.v1.RedemptionService/ReleaseAccount",
    "/holdfast.v1.RedemptionService/BatchRedeem",
    "/holdfast.v1.AccountService/ImportAccounts",
    "/holdfast.v1.AccountService/ListAccounts",
];

/// Calls of every kind of which no message, or a part of one, is there.
async fn half_open(addr: &str) -> Vec<RawCall> {
    let mut calls = Vec::new();
    for path in KINDS {
        let mut client = RawClient::connect(addr, 65_535).await;
        for n in 0..EACH {
            let part = if n % 2 == 0 { Bytes::new() } else { begun(100, 10) };
            calls.push(client.call(path, part, false).await);
        }
    }
    calls
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_calls_whose_message_does_not_come_keep_nobody_out_and_are_ended() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(4).await;
    let calls = half_open(&world.server(0).addr().to_string()).await;

    let acquired = lease(&clients.acquire(|_| {}).await.unwrap());
    let code = world.code("normal");
    clients.redeem(&acquired, &code, |_| {}).await.unwrap();
    clients.release(&acquired).await.unwrap();
    clients.account("a-000").await;
    let mut session = Session::open(&mut clients, opening("normal")).await.unwrap();
    session.send(item("one", &world.code("one"))).await;
    credited(&session.result().await);
    session.finish().await.unwrap();
    clients.create_account("more", |_| {}).await;

    for (n, call) in calls.into_iter().enumerate() {
        // One of each kind, with a part of its message and without.
        if n % EACH < 2 {
            let error = call.error().await;
            assert_eq!(error.code(), Code::DeadlineExceeded, "{}", KINDS[n / EACH]);
            assert_eq!(reason(&error), "REQUEST_INCOMPLETE");
        }
    }
}

#[tokio::test]
async fn a_request_that_has_its_message_and_no_end_is_not_at_work_either() {
    let world = World::start().await;
    let mut client = RawClient::connect(&world.server(0).addr().to_string(), 65_535).await;
    let request = pb::GetPoolRequest { pool_id: POOL.to_owned() };
    let path = "/holdfast.v1.PoolService/GetPool";
    let mut open = client.call(path, framed(&request), false).await;
    let whole = client.call(path, framed(&request), true).await.answered().await;
    assert!(!whole.headers().contains_key("grpc-status"), "it has a message");
    open.request.send_data(Bytes::new(), true).unwrap();
    assert!(!open.answered().await.headers().contains_key("grpc-status"), "with its end it is one");
    let two = [framed(&request), framed(&request)].concat();
    let error = client.call(path, two.into(), true).await.error().await;
    assert_eq!(reason(&error), "INVALID_ARGUMENT");
}

/// Waits until the server closes the connection, to which nothing more is sent.
async fn closed_after(addr: &str, bytes: &[u8]) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut rest = Vec::new();
    let closed = timeout(LIMIT, stream.read_to_end(&mut rest)).await;
    assert!(closed.is_ok(), "after {bytes:?}");
}

#[tokio::test]
async fn a_connection_that_says_nothing_or_half_of_something_is_closed() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    let world = World::start().await;
    let (addr, admin) =
        (world.server(0).addr().to_string(), world.server(0).admin_addr().to_string());
    let begun = |part: &[u8]| [PREFACE, SETTINGS, part].concat();
    let (half_a_header, half_a_block) = (begun(&[0, 0]), begun(&[0, 0, 1, 1, 0, 0, 0, 0, 1, 0x83]));
    // It has sent all that it must, and then does not answer when it is asked whether it lives.
    let silent = begun(&[]);
    tokio::join!(
        closed_after(&addr, b""),
        closed_after(&addr, &PREFACE[..20]),
        closed_after(&addr, &half_a_header),
        closed_after(&addr, &half_a_block),
        closed_after(&addr, &silent),
        closed_after(&admin, b""),
        closed_after(&admin, b"GET /readyz HTTP/1.1\r\nhost: x\r\n"),
    );
    world.clients(0).await.create_account("normal", |_| {}).await;
}
