//! Bounds on what a server keeps for its clients, in bytes of the process.

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use holdfast::rpc::pb;
use prost::Message as _;

use crate::support::{
    fleet::{Able, Fleet, Setup},
    raw_http2::{RawClient, begun, framed},
    wait::eventually,
    world::{Clients, POOL, World, lease},
};

const LIMIT: Duration = Duration::from_secs(60);
const MIB: usize = 1024 * 1024;
/// What one connection may make the server keep, in MiB: see the record of 2026-11-29.
const OF_ONE_CONNECTION: u64 = 128;

fn fleet() -> Setup {
    let able = Able { deduplicates: true, looks_up: true, cancels: true };
    Setup { able, serve: Vec::new(), provider: Vec::new() }
}

async fn one_server() -> (Fleet, Clients) {
    let mut fleet = Fleet::start(fleet()).await;
    fleet.start_server(&[("HOLDFAST_LOG", "info")]).await;
    let mut clients = fleet.clients(0);
    clients.create_pool(POOL).await;
    (fleet, clients)
}

/// Labels that make an account's message about 40 KiB long.
fn large_labels() -> std::collections::HashMap<String, String> {
    let key = |n: u32| char::from_u32(0x1f600 + n).unwrap().to_string().repeat(63);
    (0..32).map(|n| (key(n), "😀".repeat(256))).collect()
}

async fn create_large_accounts(clients: &mut Clients, count: usize) {
    for n in 0..count {
        clients.create_account(&format!("a-{n:03}"), |a| a.labels = large_labels()).await;
    }
}

#[tokio::test]
async fn an_explanation_of_large_accounts_is_cut() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    create_large_accounts(&mut clients, 40).await;
    let explain = pb::ExplainAcquireRequest {
        pool_id: POOL.to_owned(),
        page_size: 1000,
        ..Default::default()
    };
    let explained = clients.redemptions.explain_acquire(explain).await.unwrap().into_inner();
    assert!(explained.encoded_len() < MIB + 4096, "{} bytes", explained.encoded_len());
    assert!(!explained.considered_accounts.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_reads_are_kept_within_a_bound() {
    let (fleet, mut clients) = one_server().await;
    create_large_accounts(&mut clients, 30).await;
    let before = fleet.servers[0].memory_mib();
    // Ready to take nothing of any answer.
    let mut unread = Vec::new();
    let mut client = RawClient::connect(&fleet.servers[0].addr, 0).await;
    let request =
        pb::ListAccountsRequest { pool_id: POOL.to_owned(), page_size: 1000, ..Default::default() };
    for _ in 0..400 {
        let call = client.call("/holdfast.v1.AccountService/ListAccounts", framed(&request), true);
        unread.push(call.await.answered().await);
    }
    let most = fleet.servers[0].most_memory_mib();
    assert!(most < before + 160, "{most} MiB after {before}, for 400 answers of 1 MiB");
    // Whoever reads its answer gets it.
    let page = clients.accounts.list_accounts(request).await.unwrap().into_inner();
    assert!(page.accounts.len() > 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_are_not_complete_are_kept_within_a_bound() {
    let (fleet, mut clients) = one_server().await;
    let before = fleet.servers[0].memory_mib();
    let mut client = RawClient::connect(&fleet.servers[0].addr, 65_535).await;
    let mut calls = Vec::new();
    // Announced as 15 MiB: refused, and nothing of it is kept.
    for _ in 0..60 {
        let part = begun(15 * MIB as u32, 60_000);
        let call = client.call("/holdfast.v1.RedemptionService/Redeem", part, false).await;
        assert_eq!(call.error().await.code(), tonic::Code::InvalidArgument);
    }
    // As long as a message may be, but for the end: of one message, and of a stream's.
    for n in 0..300 {
        let path = match n % 2 {
            0 => "/holdfast.v1.RedemptionService/Redeem",
            _ => "/holdfast.v1.AccountService/ImportAccounts",
        };
        let mut call = client.call(path, begun(MIB as u32, 0), false).await;
        let bytes = Bytes::from(vec![7; MIB - 1]);
        call.request.send_data(bytes, false).unwrap();
        calls.push(call);
    }
    let ended = eventually(LIMIT, "the first to be let go of", async || {
        (&mut calls[0].answer).now_or_never()
    })
    .await
    .unwrap();
    assert!(ended.headers().contains_key("grpc-status"));
    let most = fleet.servers[0].most_memory_mib();
    assert!(most < before + 160, "{most} MiB after {before}, for 300 messages of 1 MiB");
    clients.create_account("normal", |_| {}).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_resets_its_calls_without_end_is_bounded_and_its_neighbours_are_served() {
    let (fleet, mut clients) = one_server().await;
    clients.create_accounts(2).await;
    let before = fleet.servers[0].memory_mib();
    let mut flood = RawClient::connect(&fleet.servers[0].addr, 65_535).await;
    let flooding = tokio::spawn(async move {
        for _ in 0..100_000 {
            let path = "/holdfast.v1.RedemptionService/Redeem";
            let mut call = flood.call(path, Bytes::new(), false).await;
            call.request.send_reset(h2::Reason::CANCEL);
        }
    });
    for _ in 0..20 {
        let held = lease(&clients.acquire(|_| {}).await.unwrap());
        clients.release(&held).await.unwrap();
    }
    let _ = tokio::time::timeout(Duration::from_secs(20), flooding).await;
    let most = fleet.servers[0].most_memory_mib();
    assert!(most < before + OF_ONE_CONNECTION, "{most} MiB after {before}");
    let held = lease(&clients.acquire(|_| {}).await.unwrap());
    clients.release(&held).await.unwrap();
}
