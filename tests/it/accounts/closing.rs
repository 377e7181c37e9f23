//! Pausing and draining a pool or an account: nothing new, or no new lease; what was begun is finished.

use std::time::Duration;

use holdfast::{
    rpc::pb::{self, AccountStatus::*, RedemptionState},
    simulator::faults::{Faults, Latency},
};
use tonic::Status;

use crate::support::{
    batch::{Session, credited, item, opening, refusal},
    plans::{CARD, expecting, psql},
    wait::eventually,
    world::{Clients, World, lease, reason, seconds},
};

const LIMIT: Duration = Duration::from_secs(10);

/// What is closed, and how.
#[derive(Clone, Copy, Debug)]
enum Closed {
    PoolPaused,
    PoolDraining,
    AccountPaused,
    AccountDraining,
}

use Closed::{AccountDraining, AccountPaused, PoolDraining, PoolPaused};

impl Closed {
    /// Closes it, or opens it again.
    async fn set(self, clients: &mut Clients, closed: bool) {
        match self {
            PoolPaused => drop(clients.update_pool(|p| p.paused = Some(closed)).await),
            PoolDraining => drop(clients.update_pool(|p| p.draining = Some(closed)).await),
            AccountPaused => {
                clients.update_account("a", &[], |a| a.paused = Some(closed)).await.unwrap();
            }
            AccountDraining => {
                clients.update_account("a", &[], |a| a.draining = Some(closed)).await.unwrap();
            }
        }
    }

    /// How acquisitions are refused.
    async fn is_refused(self, clients: &mut Clients) {
        match self {
            AccountPaused => clients.passed_over(CARD, &[("paused", 1)]).await,
            AccountDraining => clients.passed_over(CARD, &[("draining", 1)]).await,
            PoolPaused | PoolDraining => {
                let error = clients.acquire_for(CARD).await.unwrap_err();
                assert_eq!(reason(&error), self.reason(), "{self:?}");
            }
        }
    }

    fn reason(self) -> &'static str {
        match self {
            PoolPaused => "POOL_PAUSED",
            PoolDraining => "POOL_DRAINING",
            AccountPaused => "ACCOUNT_PAUSED",
            AccountDraining => "",
        }
    }
}

async fn world_with_an_account() -> (World, Clients) {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;
    (world, clients)
}

fn slow(milliseconds: u64) -> Faults {
    let time = Duration::from_millis(milliseconds);
    Faults { latency: Latency { min: time, max: time }, ..Faults::default() }
}

#[tokio::test]
async fn what_is_paused_begins_nothing_and_what_drains_goes_on_under_the_leases_that_are_out() {
    let (world, mut clients) = world_with_an_account().await;
    for (place, closed) in
        [PoolPaused, PoolDraining, AccountPaused, AccountDraining].into_iter().enumerate()
    {
        let held = clients.acquire_for(CARD).await.unwrap();
        closed.set(&mut clients, true).await;
        clients.renew(&held, Duration::from_secs(20)).await.unwrap();
        let code = world.code(&place.to_string());
        let redeemed = clients.redeem(&held, &code, |_| {}).await;
        match (closed, redeemed) {
            (PoolDraining | AccountDraining, Ok(redeemed)) => {
                let state = redeemed.redemption.unwrap().state();
                assert_eq!(state, RedemptionState::Succeeded, "{closed:?}");
            }
            (PoolPaused | AccountPaused, Err(error)) => {
                assert_eq!(reason(&error), closed.reason());
            }
            (_, answer) => panic!("{closed:?}: {answer:?}"),
        }
        let released = clients.release(&held).await.unwrap();
        assert_ne!(released.status(), Locking, "{closed:?}");
        closed.is_refused(&mut clients).await;
        closed.set(&mut clients, false).await;
        let held = clients.acquire_for(CARD).await.unwrap();
        clients.release(&held).await.unwrap();
    }
}

#[tokio::test]
async fn a_redemption_that_was_begun_is_finished_whatever_is_closed() {
    let (world, mut clients) = world_with_an_account().await;
    world.set_faults(slow(500));
    for (place, closed) in
        [PoolPaused, PoolDraining, AccountPaused, AccountDraining].into_iter().enumerate()
    {
        let held = clients.acquire_for(CARD).await.unwrap();
        let (mut other, code) = (clients.clone(), world.code(&place.to_string()));
        let redeeming = tokio::spawn(async move {
            other.redeem(&held, &code, |request| request.release_on_completion = true).await
        });
        eventually(LIMIT, "it is begun", async || {
            (!clients.account("a").await.open_redemption_id.is_empty()).then_some(())
        })
        .await;
        closed.set(&mut clients, true).await;
        let redeemed = redeeming.await.unwrap().unwrap().redemption.unwrap();
        assert_eq!(redeemed.state(), RedemptionState::Succeeded, "{closed:?}");
        assert_eq!(clients.status_of("a").await, Processing, "{closed:?}");
        closed.is_refused(&mut clients).await;
        closed.set(&mut clients, false).await;
    }
}

/// Somebody who waits for an account, and holds it a while when it comes.
fn wait(clients: &Clients) -> tokio::task::JoinHandle<Result<pb::LeaseRef, Status>> {
    let mut clients = clients.clone();
    tokio::spawn(async move {
        let acquired = clients
            .acquire(|r| (r.selector, r.wait_timeout) = (Some(expecting(CARD)), seconds(60.0)))
            .await?;
        Ok(lease(&acquired))
    })
}

#[tokio::test]
async fn who_waits_is_told_that_the_pool_was_closed_on_every_server() {
    let world = World::with(|_| {}, 2).await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;
    let held = clients.acquire_for(CARD).await.unwrap();
    for closed in [PoolPaused, PoolDraining] {
        let waiting = [wait(&clients), wait(&clients), wait(&world.clients(1).await)];
        clients.until_waiting(2).await;
        world.clients(1).await.until_waiting(1).await;
        closed.set(&mut clients, true).await;
        for waiter in waiting {
            let told = tokio::time::timeout(LIMIT, waiter).await.expect("at its next try");
            assert_eq!(reason(&told.unwrap().unwrap_err()), closed.reason());
        }
        closed.set(&mut clients, false).await;
    }
    let waiter = wait(&clients);
    clients.release(&held).await.unwrap();
    let held = tokio::time::timeout(LIMIT, waiter).await.expect("it is open").unwrap().unwrap();
    clients.release(&held).await.unwrap();
}

#[tokio::test]
async fn who_waits_gets_an_account_that_is_resumed() {
    let (_world, mut clients) = world_with_an_account().await;
    for closed in [AccountPaused, AccountDraining] {
        closed.set(&mut clients, true).await;
        let waiter = wait(&clients);
        closed.is_refused(&mut clients).await;
        assert!(!waiter.is_finished(), "an account may be resumed, so it is waited for");
        closed.set(&mut clients, false).await;
        let held = tokio::time::timeout(LIMIT, waiter).await.expect("it is open").unwrap();
        clients.release(&held.unwrap()).await.unwrap();
    }
}

#[tokio::test]
async fn a_batch_is_not_opened_in_a_closed_pool_and_one_that_is_under_way_begins_no_more() {
    let (world, mut clients) = world_with_an_account().await;
    for closed in [PoolPaused, PoolDraining] {
        closed.set(&mut clients, true).await;
        let error = Session::open(&mut clients, opening("closed")).await.err().unwrap();
        assert_eq!(reason(&error), closed.reason());
        closed.set(&mut clients, false).await;

        world.set_faults(slow(500));
        let name = format!("{closed:?}");
        let mut session = Session::open(&mut clients, opening(&name)).await.unwrap();
        session.send(item("first", &world.code(&format!("{name}-1")))).await;
        eventually(LIMIT, "it is begun", async || {
            (!clients.account("a").await.open_redemption_id.is_empty()).then_some(())
        })
        .await;
        closed.set(&mut clients, true).await;
        session.send(item("second", &world.code(&format!("{name}-2")))).await;
        let results = [session.result().await, session.result().await];
        let of = |name: &str| results.iter().find(|result| result.item_id == name).unwrap();
        credited(of("first"));
        assert_eq!(reason(&refusal(of("second"))), closed.reason());
        let ended = session.finish().await.unwrap();
        assert_eq!((ended.summary.succeeded, ended.summary.rejected), (1, 1));
        closed.set(&mut clients, false).await;
        world.set_faults(Faults::default());
    }
}

#[tokio::test]
async fn what_is_closed_is_told_and_stays_so_through_a_lease() {
    let (world, mut clients) = world_with_an_account().await;
    let held = clients.acquire_for(CARD).await.unwrap();
    let account = clients
        .update_account("a", &[], |a| (a.paused, a.draining) = (Some(true), Some(true)))
        .await
        .unwrap();
    assert_eq!((account.paused, account.draining), (Some(true), Some(true)));
    assert_eq!(account.status(), Locking, "a person may close what is under a lease");
    clients.release(&held).await.unwrap();
    clients.passed_over(CARD, &[("paused", 1)]).await;
    // What the mask names and is not set is false; the other stays.
    let account = clients.update_account("a", &["paused"], |_| {}).await.unwrap();
    assert_eq!((account.paused, account.draining), (Some(false), Some(true)));
    clients.passed_over(CARD, &[("draining", 1)]).await;
    let pool = clients.update_pool(|pool| pool.draining = Some(true)).await;
    assert_eq!((pool.paused, pool.draining), (Some(false), Some(true)));
    assert!(clients.explain(expecting(CARD)).await.pool_closed);
    psql(&mut world.sql().await, "UPDATE pools SET draining = false").await;
    assert!(!clients.explain(expecting(CARD)).await.pool_closed);
}
