//! A server that stops waits for what it sends itself, and for nothing else.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use holdfast::{
    config::ServeArgs,
    rpc::pb::{self, RedemptionState},
    simulator::faults::{Fault, Faults},
};
use sqlx::{Connection as _, PgConnection};

use crate::support::{
    batch::{Session, begun, item, opening, said_item},
    fleet::{Able, Fleet, Setup},
    wait::eventually,
    world::{POOL, World, lease},
};

const LIMIT: Duration = Duration::from_secs(20);

/// What joins a redemption that a killed server was sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Joins {
    Redeem,
    Batch,
}

#[tokio::test]
async fn a_stop_does_not_wait_for_what_a_killed_server_was_sending() {
    for joins in [Joins::Redeem, Joins::Batch] {
        let able = Able { deduplicates: true, looks_up: true, cancels: true };
        // Nobody takes over before the send window of the killed server is over.
        let serve = ["--provider-send-window=60s", "--shutdown-timeout=120s"];
        let serve = serve.map(str::to_owned).to_vec();
        let mut fleet = Fleet::start(Setup { able, serve, provider: Vec::new() }).await;
        fleet.start_server(&[("HOLDFAST_CRASH_POINTS", "begin.after=kill")]).await;
        let mut first = fleet.clients(0);
        first.create_pool(POOL).await;
        first.create_account("a", |_| {}).await;
        let code = fleet.code("joined");
        let held = lease(&first.acquire(|_| {}).await.unwrap());
        // Open until the server is killed.
        let _session = match joins {
            Joins::Redeem => {
                let called = |r: &mut pb::RedeemRequest| r.request_id = "joined-request".to_owned();
                first.redeem(&held, &code, called).await.unwrap_err();
                None
            }
            Joins::Batch => {
                first.release(&held).await.unwrap();
                let session = Session::open(&mut first, opening("b")).await.unwrap();
                session.send(item("i", &code)).await;
                Some(session)
            }
        };
        eventually(LIMIT, "the first is killed", async || fleet.first_is_gone().then_some(()))
            .await;
        let second = fleet.start_server(&[]).await;
        let mut clients = fleet.clients(second);
        let joined = tokio::spawn(async move {
            match joins {
                Joins::Redeem => {
                    let reply = clients
                        .redeem(&held, &code, |r| r.request_id = "joined-request".to_owned())
                        .await
                        .unwrap();
                    reply.redemption.unwrap()
                }
                Joins::Batch => {
                    let mut session = Session::open(&mut clients, opening("b")).await.unwrap();
                    session.send(item("i", &code)).await;
                    begun(&session.result().await).unwrap().clone()
                }
            }
        });
        let printed = |fleet: &Fleet| fleet.servers[second].said();
        eventually(LIMIT, "it has joined", async || {
            printed(&fleet).contains("\"message\":\"joined\"").then_some(())
        })
        .await;
        fleet.servers[second].end().await;
        // It is not settled, nor taken over: nobody has waited for that.
        let mut db = PgConnection::connect(&fleet.db_url).await.unwrap();
        let state = "SELECT state FROM redemptions";
        let state: String = sqlx::query_scalar(state).fetch_one(&mut db).await.unwrap();
        assert_eq!(state, "SUBMITTED", "{joins:?}");
        let told = joined.await.unwrap();
        assert_eq!(told.state(), RedemptionState::Submitted, "{joins:?}: what is known of it");
        let finished = "stopped: all work in progress was finished";
        assert!(printed(&fleet).contains(finished), "{joins:?}: {}", printed(&fleet));
        // So that the test need not wait either.
        let due = "UPDATE redemptions SET next_check_at = now()";
        sqlx::query(due).execute(&mut db).await.unwrap();
    }
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_client_that_reads_no_results() {
    let mut world = World::with(|args| args.shutdown_timeout = Duration::from_secs(300), 1).await;
    let mut clients = world.clients(0).await;
    let session = Session::open(&mut clients, opening("unread")).await.unwrap();
    // More refusals than are kept for a client that does not read them.
    let sent = Arc::new(AtomicUsize::new(0));
    let (items, count) = (session.items.clone(), Arc::clone(&sent));
    let sending = tokio::spawn(async move {
        let bad = pb::BatchItem { item_id: "x".repeat(200), ..Default::default() };
        while items.send(said_item(bad.clone())).await.is_ok() {
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let (mut before, mut unchanged) = (0, 0);
    eventually(LIMIT, "the server takes no more", async || {
        let now = sent.load(Ordering::SeqCst);
        unchanged = if now == before { unchanged + 1 } else { 0 };
        before = now;
        (now > 100 && unchanged > 50).then_some(())
    })
    .await;
    let server = world.take_server(0);
    world.start_server().await;
    tokio::time::timeout(LIMIT, server.stop()).await.expect("it does not wait").unwrap();
    drop(session);
    sending.abort();
}

/// Has a provider that is at work on a card for long, and answers with what the caller is told when its server stops.
async fn told_at_a_stop(fault: Fault, change: impl FnOnce(&mut ServeArgs)) -> pb::Redemption {
    let mut world = World::with(change, 1).await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(1).await;
    let code = world.code("at-work");
    let rules = Faults::of_card(&code, &[fault]);
    let processing_time = Duration::from_secs(10);
    world.set_faults(Faults { rules, processing_time, ..Faults::default() });
    let held = lease(&clients.acquire(|_| {}).await.unwrap());
    let redeeming = tokio::spawn({
        let (mut clients, held) = (clients.clone(), held.clone());
        async move { clients.redeem(&held, &code, |_| {}).await }
    });
    eventually(LIMIT, "the redemption is begun", async || {
        let account = clients.account(&held.account_id).await;
        (!account.open_redemption_id.is_empty()).then_some(())
    })
    .await;
    let server = world.take_server(0);
    world.start_server().await;
    tokio::time::timeout(LIMIT, server.stop()).await.expect("it ends in time").unwrap();
    let told = redeeming.await.unwrap();
    world.set_faults(Faults::default());
    told.map(|told| told.redemption.unwrap()).unwrap_or_default()
}

#[tokio::test]
async fn a_stop_does_not_wait_for_the_next_poll_of_the_provider() {
    let change = |args: &mut ServeArgs| {
        args.shutdown_timeout = Duration::from_secs(300);
        args.provider.send_window = Duration::from_secs(200);
        args.provider.not_after = Duration::from_secs(400);
        args.provider.max_processing_time = Duration::from_secs(7200);
    };
    let told = told_at_a_stop(Fault::Slow202, change).await;
    assert_eq!(told.state(), RedemptionState::InDoubt, "another server goes on with it");
}
