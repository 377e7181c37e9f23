//! A server that may open no more files: it goes on with what is open, and accepts again later.

use std::{fs, time::Duration};

use holdfast::rpc::pb;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tokio::{io::AsyncReadExt as _, net::TcpStream};

use crate::support::{
    fleet::{Able, Fleet, Process, Setup},
    wait::eventually,
    world::POOL,
};

const LIMIT: Duration = Duration::from_secs(30);
/// How long the work of the server is counted.
const WHILE: Duration = Duration::from_secs(2);

fn open_files(server: &Process) -> u64 {
    fs::read_dir(format!("/proc/{}/fd", server.id())).unwrap().count() as u64
}

fn pid(server: &Process) -> Option<Pid> {
    Pid::from_raw(server.id().try_into().unwrap())
}

/// From now on the server may have this many files open. Answers how many it might before.
fn allow_files(server: &Process, files: u64) -> u64 {
    let all = fs::read_to_string(format!("/proc/{}/limits", server.id())).unwrap();
    let line = all.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let maximum = line.split_whitespace().nth(4).unwrap().parse().ok();
    let limit = Rlimit { current: Some(files), maximum };
    prlimit(pid(server), Resource::Nofile, limit).unwrap().current.unwrap()
}

/// The processor time that the server has used, in hundredths of a second.
fn work(server: &Process) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", server.id())).unwrap();
    // The name, in brackets, may have spaces in it. After it, the 12th and 13th are the times.
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_a_free_file_serves_what_is_open_without_spinning_and_accepts_later() {
    // What reqwest wants also where it uses no TLS.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let able = Able { deduplicates: true, looks_up: true, cancels: true };
    let setup = Setup { able, serve: Vec::new(), provider: Vec::new() };
    let mut fleet = Fleet::start(setup).await;
    fleet.start_server(&[("HOLDFAST_LOG", "info")]).await;
    let mut clients = fleet.clients(0);
    clients.create_pool(POOL).await;
    clients.create_account("a", |_| {}).await;
    let server = &fleet.servers[0];
    let most = open_files(server) + 4;
    let before = allow_files(server, most);
    let mut others = Vec::new();
    // Those for which no file can be opened are closed.
    for _ in 0..20 {
        others.push(TcpStream::connect(&server.addr).await.unwrap());
    }
    let last = others.last_mut().unwrap();
    let closed = tokio::time::timeout(LIMIT, last.read(&mut [0; 64])).await;
    assert_eq!(closed.expect("it is closed").unwrap_or(0), 0);
    eventually(LIMIT, "a connection cannot be accepted", async || {
        server.said().contains("connections cannot be accepted").then_some(())
    })
    .await;

    // Also to one who could not ask otherwise.
    let ready = reqwest::get(format!("http://{}/readyz", server.admin_addr())).await;
    assert_eq!(ready.map(|answer| answer.status().as_u16()).ok(), Some(503));

    let used = work(server);
    let end = tokio::time::Instant::now() + WHILE;
    let mut served = 0;
    while tokio::time::Instant::now() < end {
        clients.account("a").await;
        served += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let used = work(server) - used;
    assert!(served > 0);
    assert!(open_files(server) >= most - 2, "it stays without a free file");
    // One thread that does nothing but try to accept would use twice as much.
    assert!(used < 100, "{used} hundredths of a second of work in {WHILE:?}");

    drop(others);
    // As soon as it has noticed that they are gone.
    eventually(LIMIT, "a connection is accepted", async || {
        let request = pb::GetAccountRequest { pool_id: POOL.into(), account_id: "a".into() };
        fleet.clients(0).accounts.get_account(request).await.ok()
    })
    .await;
    allow_files(&fleet.servers[0], before);
}
