//! Floods of HTTP/2's own frames: they keep nobody out, and the server keeps nothing of them.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::support::{
    fleet::{Able, Fleet, Setup},
    steady::Steady,
    world::POOL,
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long one flood goes on, at most.
const FLOOD: Duration = Duration::from_secs(4);
/// How much more memory the server may have after all of them, in MiB.
const MOST_MIB: u64 = 200;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let header = [length[1], length[2], length[3], kind, flags, 0, 0, 0, stream];
    [&header[..], payload].concat()
}

/// A block of headers that begins a call of gRPC.
fn call() -> Vec<u8> {
    let text = |index: &[u8], text: &str| {
        let length = u8::try_from(text.len()).unwrap();
        [index, &[length], text.as_bytes()].concat()
    };
    [
        // POST, over http.
        vec![0x83, 0x86],
        text(&[0x04], "/holdfast.v1.RedemptionService/Redeem"),
        text(&[0x01], "holdfast"),
        text(&[0x0f, 0x10], "application/grpc"),
    ]
    .concat()
}

/// A header of a megabyte, in frames of the usual size.
fn large_headers() -> Vec<u8> {
    const BYTES: u32 = 1 << 20;
    // A header of its own name, "a"; its length is one of HPACK's numbers.
    let mut block = vec![0x00, 1, b'a', 0x7f];
    let mut rest = BYTES - 127;
    while rest >= 128 {
        block.push(u8::try_from(rest % 128).unwrap() | 0x80);
        rest /= 128;
    }
    block.push(u8::try_from(rest).unwrap());
    block.resize(block.len() + BYTES as usize, b'x');
    let block = [call(), block].concat();
    let parts: Vec<_> = block.chunks(16_384).collect();
    let last = parts.len() - 1;
    let parts = parts.iter().enumerate().map(|(n, part)| {
        let kind = if n == 0 { HEADERS } else { CONTINUATION };
        frame(kind, if n == last { END_HEADERS } else { 0 }, 1, part)
    });
    parts.collect::<Vec<_>>().concat()
}

/// Sends as much of a flood as the server takes in its time; whether its answers are read or not.
async fn flood(addr: &str, begins: &[u8], again: &[u8], reads: bool) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let begins = [PREFACE, &frame(SETTINGS, 0, 0, &[]), begins].concat();
    let again = again.repeat((256 * 1024 / again.len()).max(1));
    let (mut from, mut to) = stream.split();
    let send = async {
        // The server may close the connection at any time.
        if to.write_all(&begins).await.is_ok() {
            while to.write_all(&again).await.is_ok() {}
        }
    };
    let read = async {
        let mut bytes = vec![0; 64 * 1024];
        while reads && from.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
        std::future::pending::<()>().await;
    };
    let _ = timeout(FLOOD, async {
        tokio::select! { () = send => {}, () = read => {} }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_without_end_keep_nobody_out_and_nothing_of_them_is_kept() {
    let able = Able { deduplicates: true, looks_up: true, cancels: true };
    let mut fleet = Fleet::start(Setup { able, serve: Vec::new(), provider: Vec::new() }).await;
    fleet.start_server(&[("HOLDFAST_LOG", "info")]).await;
    let mut clients = fleet.clients(0);
    clients.create_pool(POOL).await;
    clients.create_accounts(2).await;
    let before = fleet.servers[0].memory_mib();
    let addr = fleet.servers[0].addr.clone();

    let in_block = frame(HEADERS, 0, 1, &call());
    let in_call = frame(HEADERS, END_HEADERS, 1, &call());
    let floods: [(&str, Vec<u8>, Vec<u8>); 9] = [
        ("PING", vec![], frame(PING, 0, 0, &[7; 8])),
        ("SETTINGS", vec![], frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100])),
        ("empty SETTINGS", vec![], frame(SETTINGS, 0, 0, &[])),
        ("CONTINUATION", in_block.clone(), frame(CONTINUATION, 0, 1, &[0x83; 1000])),
        ("empty CONTINUATION", in_block, frame(CONTINUATION, 0, 1, &[])),
        ("empty DATA", in_call.clone(), frame(DATA, 0, 1, &[])),
        ("WINDOW_UPDATE", in_call, frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])),
        ("headers of a megabyte", vec![], large_headers()),
        ("what is unknown", vec![], frame(0xee, 0xff, 0, &[1; 100])),
    ];
    for (name, begins, again) in floods {
        let steady = Steady::begin(&clients);
        tokio::join!(flood(&addr, &begins, &again, true), flood(&addr, &begins, &again, false));
        steady.was_served().await;
        let most = fleet.servers[0].most_memory_mib();
        assert!(most < before + MOST_MIB, "{name}: {most} MiB after {before}");
    }
}
