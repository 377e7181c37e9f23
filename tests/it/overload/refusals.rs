//! Refusals under overload: who is refused, how, and who never is.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use holdfast::{
    config::ServeArgs,
    rpc::pb::{self, AccountStatus, RedemptionState},
};
use secrecy::ExposeSecret as _;
use tokio::task::JoinSet;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use crate::support::{
    batch::{self, credited, item, opening},
    proxy::{
        Fired, Proxy,
        postgres::{Fault, Postgres, statement},
    },
    wait::eventually,
    world::{Clients, POOL, World, lease, reason, seconds},
};

const LIMIT: Duration = Duration::from_secs(30);
/// How long a statement is held up, while others pass.
const HELD: Duration = Duration::from_secs(6);
/// More acquirers than may be at work when nothing was measured yet.
const FAR_TOO_MANY: usize = 1500;

/// A world whose server reaches its database through a proxy.
struct Stage {
    world: World,
    proxy: Proxy<Postgres>,
    clients: Clients,
}

impl Stage {
    async fn with_accounts(count: usize) -> Self {
        let mut proxy = None;
        let through = |args: &mut ServeArgs| {
            let url = args.database_url.take().unwrap();
            let between = Proxy::<Postgres>::before(url.expose_secret());
            args.database_url = Some(between.url(url.expose_secret()).into());
            proxy = Some(between);
        };
        let world = World::with(through, 1).await;
        let mut clients = world.clients(0).await;
        clients.create_accounts(count).await;
        Self { world, proxy: proxy.unwrap(), clients }
    }

    /// Holds up the next statement of a kind: it is done, and its answer comes late.
    fn hold_up(&self, text: &str, time: Duration) -> Fired {
        self.proxy.fault(statement(text), Fault::DelayReply(time))
    }

    async fn leases(&mut self, count: usize) -> Vec<pb::LeaseRef> {
        let mut leases = Vec::new();
        for _ in 0..count {
            let acquired = self.clients.acquire(|request| request.lease_duration = seconds(60.0));
            leases.push(lease(&acquired.await.unwrap()));
        }
        leases
    }

    async fn list(&mut self) -> Result<(), Status> {
        let request = pb::ListAccountsRequest { pool_id: POOL.to_owned(), ..Default::default() };
        self.clients.accounts.list_accounts(request).await.map(drop)
    }
}

/// Waits for a call to be refused as overload, calling again and again, and answers the refusal.
async fn refused(what: &str, mut call: impl AsyncFnMut() -> Result<(), Status>) -> Status {
    let refusal = eventually(LIMIT, what, async || call().await.err()).await;
    assert_overloaded(&refusal);
    refusal
}

/// How long a refused caller is asked to wait.
fn assert_overloaded(refusal: &Status) -> Duration {
    assert_eq!((refusal.code(), &*reason(refusal)), (Code::ResourceExhausted, "OVERLOADED"));
    let details = refusal.get_error_details();
    let after = details.retry_info().unwrap().retry_delay.unwrap();
    assert!(after >= Duration::from_millis(50) && after < Duration::from_secs(10), "{after:?}");
    after
}

/// A caller who does not wait longer.
fn within<T>(message: T, timeout: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

fn assert_out_of_time(error: &Status) {
    // The client's own clock says that the call was cancelled, where it is quicker than the server.
    assert!(matches!(error.code(), Code::DeadlineExceeded | Code::Cancelled), "{error:?}");
}

#[tokio::test]
async fn overloaded_refuses_lists_before_redemptions_and_never_what_ends_work() {
    let mut stage = Stage::with_accounts(4).await;
    let leases = stage.leases(3).await;
    let held = stage.hold_up("-- What servers that keep", HELD);
    let mut acquirers = JoinSet::new();
    let overloaded = Arc::new(AtomicUsize::new(0));
    for _ in 0..FAR_TOO_MANY {
        let (mut clients, overloaded) = (stage.clients.clone(), Arc::clone(&overloaded));
        acquirers.spawn(async move {
            let answer = clients.acquire(|_| {}).await;
            if let Err(refusal) = &answer
                && reason(refusal) != "NO_ACCOUNT_AVAILABLE"
            {
                assert_overloaded(refusal);
                overloaded.fetch_add(1, Ordering::SeqCst);
            }
            answer
        });
    }
    eventually(LIMIT, "acquirers to be refused", async || {
        (overloaded.load(Ordering::SeqCst) > 100).then_some(())
    })
    .await;

    refused("a list to be refused", async || stage.list().await).await;
    let minute = Duration::from_secs(60);
    for _ in 0..20 {
        stage.clients.renew(&leases[0], minute).await.unwrap();
    }
    let code = stage.world.code("under-load");
    let redeemed = stage.clients.redeem(&leases[0], &code, |_| {}).await.unwrap();
    assert_eq!(redeemed.redemption.unwrap().state(), RedemptionState::Succeeded);
    for lease in &leases {
        stage.clients.release(lease).await.unwrap();
    }
    assert_eq!(held.times(), 0, "all that was while the acquirers were at work");
    assert!(overloaded.load(Ordering::SeqCst) < FAR_TOO_MANY, "and not all of them were refused");

    // Whoever was admitted gets an account, or hears that there is none. Then there is room again.
    let mut served = 0;
    while let Some(acquired) = acquirers.join_next().await {
        if let Ok(acquired) = acquired.unwrap() {
            stage.clients.release(&lease(&acquired)).await.unwrap();
            served += 1;
        }
    }
    assert!(served > 0);
    stage.list().await.unwrap();
    stage.leases(1).await;
}

#[tokio::test]
async fn a_crowd_that_waits_for_an_account_keeps_nobody_out() {
    const POOL_OF_THE_CROWD: &str = "crowd";
    const CROWD: usize = 3000;
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(2).await;
    clients.create_pool(POOL_OF_THE_CROWD).await;
    clients.create_account("only", |account| account.pool_id = POOL_OF_THE_CROWD.into()).await;
    let wait = |request: &mut pb::AcquireAccountRequest| {
        request.pool_id = POOL_OF_THE_CROWD.to_owned();
        request.lease_duration = seconds(120.0);
        request.wait_timeout = seconds(300.0);
    };
    let only = lease(&clients.acquire(wait).await.unwrap());
    let mut crowd = JoinSet::new();
    for _ in 0..CROWD {
        let mut clients = clients.clone();
        crowd.spawn(async move {
            loop {
                match clients.acquire(wait).await {
                    // They all come at once: some are asked to come again.
                    Err(refusal) => tokio::time::sleep(assert_overloaded(&refusal)).await,
                    Ok(acquired) => return acquired,
                }
            }
        });
    }
    world.callers_wait(0, POOL_OF_THE_CROWD, CROWD).await;

    for _ in 0..5 {
        let other = lease(&clients.acquire(|_| {}).await.unwrap());
        clients.account(&other.account_id).await;
        clients.renew(&only, Duration::from_secs(120)).await.unwrap();
        clients.release(&other).await.unwrap();
    }
    let pools = pb::ListPoolsRequest::default();
    assert_eq!(clients.pools.list_pools(pools).await.unwrap().into_inner().pools.len(), 2);
    // And what they wait for goes to them.
    clients.release(&only).await.unwrap();
    let acquired = crowd.join_next().await.unwrap().unwrap();
    crowd.shutdown().await;
    // Those who left are not served any more. Before the server has heard of it, one may be: told just as it
    // leaves, it has a lease that nobody knows of.
    world.callers_wait(0, POOL_OF_THE_CROWD, 0).await;
    clients.release(&lease(&acquired)).await.unwrap();
    eventually(LIMIT, "the account to be free", async || {
        let request = pb::GetAccountRequest {
            pool_id: POOL_OF_THE_CROWD.to_owned(),
            account_id: "only".to_owned(),
        };
        let account = clients.accounts.get_account(request).await.unwrap().into_inner().account;
        (account.unwrap().status() == AccountStatus::Waiting).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_acquisition_whose_deadline_passes_in_the_queue_leaves_no_trace() {
    let mut stage = Stage::with_accounts(3).await;
    let held = stage.hold_up("-- What servers that keep", Duration::from_secs(2));
    let mut first = stage.clients.clone();
    let first = tokio::spawn(async move { first.acquire(|_| {}).await });
    eventually(LIMIT, "the first to be at work", async || (held.matched() == 1).then_some(()))
        .await;
    let request = pb::AcquireAccountRequest {
        pool_id: POOL.to_owned(),
        holder: "late".to_owned(),
        ..Default::default()
    };
    let late = within(request, Duration::from_millis(300));
    let error = stage.clients.redemptions.acquire_account(late).await.unwrap_err();
    assert_out_of_time(&error);
    assert_eq!(held.times(), 0, "the first is still at work");
    let never = statement("-- Apply:").skip(usize::MAX);
    let applied = stage.proxy.fault(never, Fault::CutBefore);
    first.await.unwrap().unwrap();
    // Behind whoever was in the queue.
    stage.leases(1).await;
    assert_eq!(
        applied.matched(),
        2,
        "statements for the first and for the last, and none for the late"
    );
    let leases: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM account_events WHERE pool_id = $1 AND to_status = 'LOCKING'",
    )
    .bind(POOL)
    .fetch_one(&mut stage.world.sql().await)
    .await
    .unwrap();
    assert_eq!(leases, 2);
}

#[tokio::test]
async fn a_redemption_whose_deadline_passes_before_it_is_recorded_is_not_begun() {
    let mut stage = Stage::with_accounts(2).await;
    let leases = stage.leases(2).await;
    let held = stage.hold_up("-- Begin:", Duration::from_secs(2));
    let (mut first, first_lease) = (stage.clients.clone(), leases[0].clone());
    let code = stage.world.code("first");
    let first = tokio::spawn(async move { first.redeem(&first_lease, &code, |_| {}).await });
    eventually(LIMIT, "the first to be recorded", async || (held.matched() == 1).then_some(()))
        .await;
    let redeem = pb::RedeemRequest {
        request_id: "too-late".to_owned(),
        lease: Some(leases[1].clone()),
        code: stage.world.code("late"),
        ..Default::default()
    };
    let late = within(redeem.clone(), Duration::from_millis(300));
    assert_out_of_time(&stage.clients.redemptions.redeem(late).await.unwrap_err());
    assert_eq!(held.times(), 0, "the first is still being recorded");
    first.await.unwrap().unwrap();
    let get = pb::GetRedemptionRequest {
        pool_id: POOL.to_owned(),
        request_id: redeem.request_id.clone(),
        ..Default::default()
    };
    // Its code is free: whoever is in time redeems it.
    let in_time = stage.clients.redeem(&leases[1], &redeem.code, |again| {
        again.request_id = "in-time".to_owned();
    });
    let redeemed = in_time.await.unwrap();
    assert_eq!(redeemed.redemption.unwrap().state(), RedemptionState::Succeeded);
    let error = stage.clients.redemptions.get_redemption(get).await.unwrap_err();
    assert_eq!(reason(&error), "REDEMPTION_NOT_FOUND");
}

#[tokio::test]
async fn a_release_is_done_even_when_nobody_waits_for_it_any_more() {
    let mut stage = Stage::with_accounts(2).await;
    let leases = stage.leases(2).await;
    let held = stage.hold_up("-- Apply:", Duration::from_secs(2));
    let (mut first, first_lease) = (stage.clients.clone(), leases[0].clone());
    let first = tokio::spawn(async move { first.release(&first_lease).await });
    eventually(LIMIT, "the first to be at work", async || (held.matched() == 1).then_some(()))
        .await;
    let release = pb::ReleaseAccountRequest { lease: Some(leases[1].clone()) };
    let late = within(release, Duration::from_millis(300));
    assert_out_of_time(&stage.clients.redemptions.release_account(late).await.unwrap_err());
    first.await.unwrap().unwrap();
    eventually(LIMIT, "the account to be free", async || {
        let status = stage.clients.status_of(&leases[1].account_id).await;
        (status == AccountStatus::Waiting).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_items_of_a_batch_wait_for_a_permit_and_none_is_refused() {
    let mut stage = Stage::with_accounts(40).await;
    // More in flight than there are places, all of which are taken while the first statement is held up.
    let held = stage.hold_up("-- What servers that keep", Duration::from_secs(2));
    let items: Vec<_> = (0..900)
        .map(|n| item(&format!("item-{n}"), &stage.world.code(&format!("item-{n}"))))
        .collect();
    let open = pb::BatchOpen { max_in_flight: 1024, ..opening("many") };
    let ended = batch::run(&mut stage.clients, open, &items).await.unwrap();
    assert_eq!(held.times(), 1);
    let by_item = ended.by_item();
    assert_eq!(by_item.len(), items.len());
    for result in by_item.values() {
        credited(result);
    }
}
