//! Keys and codes stay where they belong: no core dumps, and no code in memory after it is settled.

use std::{
    fs,
    io::{Read as _, Seek as _, SeekFrom},
    time::Duration,
};

use holdfast::{domain::id::RequestId, rpc::pb::RedeemRequest};
use tokio::time::{sleep, timeout};

use crate::support::{
    fleet::{Able, Fleet, Setup},
    world::{POOL, lease},
};

fn setup() -> Setup {
    let able = Able { deduplicates: true, looks_up: true, cancels: true };
    Setup { able, serve: Vec::new(), provider: Vec::new() }
}

/// Whether this test may read the memory of a process that hides it.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The texts that are in the memory which a process can write, each with where, and what is around it.
fn found_in_memory(process: u32, texts: &[String]) -> Vec<String> {
    const AROUND: usize = 80;
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let mut memory = fs::File::open(format!("/proc/{process}/mem")).unwrap();
    let mut found = Vec::new();
    for line in maps.lines().filter(|line| line.split(' ').nth(1).unwrap().starts_with("rw")) {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let hex = |text| u64::from_str_radix(text, 16).unwrap();
        let mut bytes = vec![0; usize::try_from(hex(to) - hex(from)).unwrap()];
        memory.seek(SeekFrom::Start(hex(from))).unwrap();
        if memory.read_exact(&mut bytes).is_err() {
            continue;
        }
        // Each byte as a character, so that their places are the same.
        let text: String = bytes
            .iter()
            .map(|byte| if byte.is_ascii() { char::from(*byte) } else { '.' })
            .collect();
        for wanted in texts {
            for (at, _) in text.match_indices(wanted.as_str()) {
                let end = (at + wanted.len() + AROUND).min(text.len());
                let around = &text[at.saturating_sub(AROUND)..end];
                found.push(format!("{wanted} in {line}: {around:?}"));
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_writes_no_core_dump_and_hides_its_memory() {
    let mut fleet = Fleet::start(setup()).await;
    fleet.start_server(&[]).await;
    let process = fleet.servers[0].id();
    let limits = fs::read_to_string(format!("/proc/{process}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    if !is_root() {
        assert!(fs::File::open(format!("/proc/{process}/mem")).is_err(), "it is hidden");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_is_in_no_memory_after_its_redemption_is_settled() {
    if !is_root() {
        return;
    }
    let mut fleet = Fleet::start(setup()).await;
    fleet.start_server(&[]).await;
    let mut clients = fleet.clients(0);
    clients.create_pool(POOL).await;
    clients.create_accounts(20).await;
    let mut codes = Vec::new();
    for number in 0..20 {
        let code = fleet.code(&format!("MEMORY{number}"));
        let held = lease(&clients.acquire(|_| {}).await.unwrap());
        let request = |r: &mut RedeemRequest| {
            r.request_id = RequestId::random().to_string();
            r.release_on_completion = true;
        };
        clients.redeem(&held, &code, request).await.unwrap();
        codes.push(code);
    }
    // Buffers of connections keep what they carried last, until the connections end. Those to the provider do when
    // they were idle for some seconds.
    drop(clients);
    let mut found = Vec::new();
    let limit = Duration::from_secs(20);
    let is_gone = timeout(limit, async {
        loop {
            found = found_in_memory(fleet.servers[0].id(), &codes);
            if found.is_empty() {
                return;
            }
            sleep(Duration::from_millis(500)).await;
        }
    });
    let is_gone = is_gone.await.is_ok();
    assert!(is_gone, "{found:#?}");
}
