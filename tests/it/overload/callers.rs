//! Limits of one caller, which is a connection where nobody is asked who they are: others are served beside it.

use std::{net::Ipv4Addr, time::Duration};

use holdfast::{
    config::{LimitArgs, ServeArgs},
    rpc::pb,
};
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::timeout,
};

use crate::support::{
    batch::{Session, credited, item, opening, said_item, said_open},
    proxy::{Proxy, postgres::Postgres},
    raw_http2::{RawClient, framed},
    steady::Steady,
    wait::eventually,
    world::{Clients, POOL, World, lease, reason, seconds},
};

const LIMIT: Duration = Duration::from_secs(60);

async fn world(limits: impl FnOnce(&mut LimitArgs)) -> (World, Clients) {
    let world = World::with(|args| limits(&mut args.limits), 1).await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(2).await;
    (world, clients)
}

/// Waits for an account that nobody has.
fn waiting(request: &mut pb::AcquireAccountRequest) {
    request.selector = Some(pb::AccountSelector {
        labels: [("no".to_owned(), "such".to_owned())].into(),
        ..Default::default()
    });
    request.wait_timeout = seconds(600.0);
}

fn list() -> pb::ListAccountsRequest {
    pb::ListAccountsRequest { pool_id: POOL.to_owned(), ..Default::default() }
}

async fn metrics(world: &World) -> String {
    let url = format!("http://{}/metrics", world.server(0).admin_addr());
    reqwest::get(url).await.unwrap().text().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_with_as_many_calls_as_it_may_have_is_refused_more_and_others_are_served() {
    const MOST: u32 = 100;
    let (world, clients) = world(|limits| limits.max_calls_per_caller = MOST).await;
    let mut greedy = world.clients(0).await;
    let mut waiters = JoinSet::new();
    for _ in 0..MOST {
        let mut greedy = greedy.clone();
        waiters.spawn(async move { greedy.acquire(waiting).await });
    }
    world.callers_wait(0, POOL, MOST as usize).await;
    let steady = Steady::begin(&clients);
    for _ in 0..20 {
        let refusal = greedy.acquire(waiting).await.unwrap_err();
        assert_eq!(reason(&refusal), "OVERLOADED");
    }
    let refusal = greedy.accounts.list_accounts(list()).await.unwrap_err();
    assert_eq!(reason(&refusal), "OVERLOADED");
    steady.was_served().await;
    waiters.shutdown().await;
    world.callers_wait(0, POOL, 0).await;
    greedy.accounts.list_accounts(list()).await.unwrap();
    assert!(metrics(&world).await.contains("holdfast_callers_limited_total{limit=\"calls\"}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_reads_more_often_than_it_may_is_refused_and_its_other_calls_are_not() {
    const MOST: u32 = 20;
    let (world, mut other) = world(|limits| limits.max_reads_per_second = MOST).await;
    let mut eager = world.clients(0).await;
    let mut refused = 0;
    let begun = tokio::time::Instant::now();
    for _ in 0..200 {
        if let Err(refusal) = eager.accounts.list_accounts(list()).await {
            assert_eq!(reason(&refusal), "OVERLOADED");
            refused += 1;
        }
    }
    let read = 200 - refused;
    let may = MOST as usize + (begun.elapsed().as_secs_f64() * f64::from(MOST)) as usize + 1;
    assert!(read <= may, "{read} of 200 were answered, and {may} may be");
    let held = lease(&eager.acquire(|_| {}).await.unwrap());
    eager.release(&held).await.unwrap();
    other.accounts.list_accounts(list()).await.unwrap();
    eventually(LIMIT, "it may read again", async || {
        eager.accounts.list_accounts(list()).await.ok()
    })
    .await;
}

#[tokio::test]
async fn one_address_has_no_more_connections_than_it_may_and_another_has_its_own() {
    let (world, mut clients) = world(|limits| limits.max_connections_per_address = Some(3)).await;
    let addr = world.server(0).addr();
    let connect = async |from: [u8; 4]| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::from(from), 0).into()).unwrap();
        socket.connect(addr).await.unwrap()
    };
    let is_closed = async |stream: &mut TcpStream| {
        timeout(Duration::from_secs(2), stream.read(&mut [0; 1])).await.is_ok_and(|read| {
            // Closed, or reset; what is kept first sends its settings.
            read.map_or(true, |bytes| bytes == 0)
        })
    };
    // The clients of the world have at most two.
    let mut here = Vec::new();
    for _ in 0..3 {
        here.push(connect([127, 0, 0, 1]).await);
    }
    assert!(is_closed(&mut here[2]).await, "one too many");
    let mut elsewhere = connect([127, 0, 0, 2]).await;
    assert!(!is_closed(&mut elsewhere).await);
    clients.account("a-000").await;
    let refused = "holdfast_connections_refused_total{listener=\"grpc\",limit=\"address\"}";
    assert!(metrics(&world).await.contains(refused));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_whose_caller_neither_sends_nor_reads_ends_and_its_connection_with_the_last() {
    let idle = Duration::from_secs(3);
    let (world, mut clients) = world(|limits| limits.stream_idle_timeout = idle).await;
    let mut unread = RawClient::connect(&world.server(0).addr().to_string(), 0).await;
    let mut answers = Vec::new();
    for _ in 0..50 {
        let path = "/holdfast.v1.AccountService/ListAccounts";
        answers.push(unread.call(path, framed(&list()), true).await.answered().await);
    }
    for answer in answers {
        let mut body = answer.into_body();
        let read = timeout(LIMIT, std::future::poll_fn(|cx| body.poll_data(cx))).await;
        assert!(read.unwrap().is_none_or(|read| read.is_err()), "the connection ends");
    }
    assert!(metrics(&world).await.contains("holdfast_connections_closed_total{cause=\"unread\"}"));

    // A batch whose client reads what it is told now and then goes on.
    let mut session = Session::open(&mut clients, opening("b")).await.unwrap();
    for n in 0..4 {
        tokio::time::sleep(idle / 2).await;
        let code = world.code(&format!("slow {n}"));
        session.send(item(&n.to_string(), &code)).await;
        credited(&session.result().await);
    }
    session.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_whose_window_stays_shut_ends_although_its_connection_has_calls_under_way() {
    let idle = Duration::from_secs(3);
    let (world, clients) = world(|limits| limits.stream_idle_timeout = idle).await;
    let steady = Steady::begin(&clients);
    let mut client = RawClient::connect(&world.server(0).addr().to_string(), 0).await;
    let mut acquire = pb::AcquireAccountRequest {
        request_id: "waits".into(),
        pool_id: POOL.into(),
        holder: "shut".into(),
        ..Default::default()
    };
    waiting(&mut acquire);
    let path = "/holdfast.v1.RedemptionService/AcquireAccount";
    let under_way = client.call(path, framed(&acquire), true).await;
    let path = "/holdfast.v1.AccountService/ListAccounts";
    let shut = client.call(path, framed(&list()), true).await.answered().await;
    let mut body = shut.into_body();
    let begun = tokio::time::Instant::now();
    let read = timeout(LIMIT, std::future::poll_fn(|cx| body.poll_data(cx))).await;
    assert!(read.expect("it ends").is_none_or(|read| read.is_err()));
    assert!(begun.elapsed() >= idle, "after {:?}", begun.elapsed());
    // It cannot be ended by itself, so its connection is.
    timeout(LIMIT, under_way.answer).await.expect("the connection ends").unwrap_err();
    assert!(metrics(&world).await.contains("holdfast_streams_idle_total"));
    steady.was_served().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_whose_results_nobody_reads_are_bounded_and_end() {
    const BATCHES: usize = 40;
    const ITEMS: usize = 200;
    let idle = Duration::from_secs(3);
    let (world, mut clients) = world(|limits| limits.stream_idle_timeout = idle).await;
    let mut unread = RawClient::connect(&world.server(0).addr().to_string(), 0).await;
    let mut batches = Vec::new();
    for batch in 0..BATCHES {
        let opening = said_open(opening(&format!("unread-{batch}")));
        // No currency is the pool's: each item has its answer at once.
        let items = (0..ITEMS).map(|n| {
            let expected = pb::Money { amount_minor: 1, currency_code: "USD".into() };
            let item = item(&format!("item-{n}"), &world.code(&format!("{batch} {n}")));
            framed(&said_item(pb::BatchItem { expected: Some(expected), ..item }))
        });
        let bytes: Vec<_> = std::iter::once(framed(&opening)).chain(items).collect();
        let path = "/holdfast.v1.RedemptionService/BatchRedeem";
        batches.push(unread.call(path, bytes.concat().into(), false).await);
    }
    for batch in batches {
        let (mut request, answer) = (batch.request, batch.answer);
        let ended = timeout(LIMIT, async {
            match answer.await {
                Ok(answer) => {
                    let mut body = answer.into_body();
                    let read = std::future::poll_fn(|cx| body.poll_data(cx)).await;
                    read.is_none_or(|read| read.is_err())
                }
                Err(_) => true,
            }
        })
        .await;
        assert!(ended.expect("it ends"), "nothing of it can be read");
        request.send_reset(h2::Reason::CANCEL);
    }
    let held = metrics(&world).await;
    let held =
        held.lines().find_map(|line| line.strip_prefix("holdfast_held_bytes{of=\"answers\"} "));
    assert!(held.is_none_or(|bytes| bytes.parse::<f64>().unwrap() < 64.0 * 1024.0 * 1024.0));
    // What they had is free.
    let held = lease(&clients.acquire(|_| {}).await.unwrap());
    clients.release(&held).await.unwrap();
    let mut session = Session::open(&mut clients, opening("read")).await.unwrap();
    session.send(item("one", &world.code("one"))).await;
    credited(&session.result().await);
    session.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_takes_too_long_ends_in_the_database_too() {
    let slow = |args: &mut ServeArgs, proxy: &Proxy<Postgres>| {
        let piece = "FROM found f\n    WINDOW";
        let slow = "FROM found f CROSS JOIN pg_sleep(60)\n    WINDOW";
        proxy.rewrite("-- A pool's accounts after $2", piece, slow);
        args.limits.read_timeout = Duration::from_millis(500);
    };
    let (_proxy, world) = World::proxied(slow).await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(2).await;
    let error = clients.accounts.list_accounts(list()).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::Unavailable, "{error:?}");
    let mut db = world.sql().await;
    eventually(Duration::from_secs(10), "the statement ends", async || {
        let running = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                       AND state = 'active' AND query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()";
        let running: i64 = sqlx::query_scalar(running).fetch_one(&mut db).await.unwrap();
        (running == 0).then_some(())
    })
    .await;
    clients.account("a-000").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_those_who_wait_ask_for_is_kept_within_a_bound() {
    const WAITERS: usize = 60;
    let (world, clients) = world(|limits| limits.max_waiting_mib = 6).await;
    let attacker = world.clients(0).await;
    let mut waiters = JoinSet::new();
    for waiter in 0..WAITERS {
        let mut attacker = attacker.clone();
        waiters.spawn(async move {
            let excluded = (0..1000).map(|n| format!("{waiter:0>128}{n:0>128}")).collect();
            attacker
                .acquire(|request| {
                    waiting(request);
                    let selector = request.selector.as_mut().unwrap();
                    selector.exclude_account_ids = excluded;
                })
                .await
        });
    }
    let steady = Steady::begin(&clients);
    // A third of 6 MiB is seven of them, of 288 kB each.
    for _ in 0..WAITERS - 7 {
        let answer = timeout(LIMIT, waiters.join_next()).await.expect("the others are refused");
        assert_eq!(reason(&answer.unwrap().unwrap().unwrap_err()), "OVERLOADED");
    }
    world.callers_wait(0, POOL, 7).await;
    steady.was_served().await;
    let held = metrics(&world).await;
    let held =
        held.lines().find_map(|line| line.strip_prefix("holdfast_held_bytes{of=\"waiting\"} "));
    assert!(held.unwrap().parse::<usize>().unwrap() < 3 << 20, "{held:?}");
    waiters.shutdown().await;
}
