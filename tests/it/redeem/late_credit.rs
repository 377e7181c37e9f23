//! Late credits: facts are not fenced. What the provider credited is recorded whenever it is told, and
//! added to the account, whatever lease it is under.

use std::time::Duration;

use holdfast::rpc::pb::{self, RedemptionState};

use crate::support::{
    fleet::{Able, Fleet, Setup},
    wait::eventually,
    watch::Watch,
    world::{Clients, POOL, lease},
};

const LIMIT: Duration = Duration::from_secs(30);

async fn by_request(clients: &mut Clients) -> Option<pb::Redemption> {
    let request = pb::GetRedemptionRequest {
        pool_id: POOL.to_owned(),
        request_id: "late".to_owned(),
        ..Default::default()
    };
    Some(clients.redemptions.get_redemption(request).await.ok()?.into_inner().redemption.unwrap())
}

/// A server that stands still with the provider's answer in its hands, until a person has closed the
/// redemption as failed.
async fn closed_as_failed_behind_a_servers_back(fleet: &mut Fleet) -> Clients {
    fleet.start_server(&[("HOLDFAST_CRASH_POINTS", "settle.before=stop")]).await;
    let mut first = fleet.clients(0);
    first.create_pool(POOL).await;
    first.create_account("a", |_| {}).await;
    let held = lease(&first.acquire(|_| {}).await.unwrap());
    let code = fleet.code("LATE");
    tokio::spawn(async move {
        let _ = first
            .redeem(&held, &code, |request| {
                request.request_id = "late".to_owned();
                request.release_on_completion = true;
            })
            .await;
    });
    eventually(LIMIT, "the server stands still", async || fleet.first_is_gone().then_some(()))
        .await;
    fleet.start_server(&[]).await;
    let mut second = fleet.clients(1);
    let in_review = eventually(LIMIT, "it is left to a person", async || {
        by_request(&mut second).await.filter(|r| r.state() == RedemptionState::NeedsReview)
    })
    .await;
    let request = pb::ResolveRedemptionRequest {
        pool_id: POOL.to_owned(),
        redemption_id: in_review.redemption_id,
        state: RedemptionState::Failed.into(),
        reason: "nobody knew better".to_owned(),
        resolved_by: "a person".to_owned(),
        ..Default::default()
    };
    second.redemptions.resolve_redemption(request).await.unwrap();
    second
}

/// A provider that can be asked nothing, so that a person has to say.
fn silent() -> Setup {
    let able = Able { deduplicates: false, looks_up: false, cancels: false };
    Setup { able, serve: Vec::new(), provider: Vec::new() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_success_that_comes_after_a_person_resolved_as_failed_is_credited_under_anothers_lease() {
    let mut fleet = Fleet::start(silent()).await;
    let mut clients = closed_as_failed_behind_a_servers_back(&mut fleet).await;
    let anothers = clients.acquire(|request| request.holder = "another".to_owned()).await.unwrap();
    assert_eq!(clients.account("a").await.balance.unwrap().amount_minor, 0);

    fleet.servers[0].go_on();
    let late = eventually(LIMIT, "the late answer is recorded", async || {
        by_request(&mut clients).await.filter(|r| r.state() == RedemptionState::Succeeded)
    })
    .await;
    assert_eq!(late.amount.unwrap().amount_minor, 1000);
    assert_eq!(late.failure, None);
    assert_eq!(late.resolution.unwrap().resolved_by, "a person", "kept for good");

    // The account has the amount; all else of it is the other holder's.
    let account = clients.account("a").await;
    assert_eq!(account.balance.as_ref().unwrap().amount_minor, 1000);
    let anothers = anothers.lease.unwrap();
    let now = account.lease.as_ref().unwrap();
    assert_eq!((&now.r#ref, &now.holder), (&anothers.r#ref, &anothers.holder));
    assert_eq!(now.expire_time, anothers.expire_time);
    let released = clients.release(anothers.r#ref.as_ref().unwrap()).await.unwrap();
    assert_eq!(released.status(), pb::AccountStatus::Waiting, "it credits, and does no more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_try_that_was_refused_does_not_keep_the_first_from_being_credited() {
    let mut fleet = Fleet::start(silent()).await;
    let mut clients = closed_as_failed_behind_a_servers_back(&mut fleet).await;
    // The same code again: the provider has spent it.
    let held = lease(&clients.acquire(|_| {}).await.unwrap());
    let again = clients
        .redeem(&held, &fleet.code("LATE"), |request| request.request_id = "again".to_owned())
        .await
        .unwrap();
    let again = again.redemption.unwrap();
    assert_eq!(again.state(), RedemptionState::Failed, "the card was used: {again:?}");

    fleet.servers[0].go_on();
    eventually(LIMIT, "the late answer is recorded", async || {
        by_request(&mut clients).await.filter(|r| r.state() == RedemptionState::Succeeded)
    })
    .await;
    assert_eq!(clients.account("a").await.balance.unwrap().amount_minor, 1000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_watches_is_told_the_failure_and_then_the_late_credit() {
    let mut fleet = Fleet::start(silent()).await;
    let mut clients = closed_as_failed_behind_a_servers_back(&mut fleet).await;
    let mut watch = Watch::open(&mut clients, "").await.unwrap();
    let failed = watch.outcome().await.unwrap();
    assert_eq!((failed.state(), &*failed.request_id), (RedemptionState::Failed, "late"));
    let after = watch.cursor.clone();
    fleet.servers[0].go_on();
    let mut resumed = Watch::open(&mut clients, &after).await.unwrap();
    for watch in [&mut watch, &mut resumed] {
        let credited = watch.outcome().await.unwrap();
        assert_eq!(credited.redemption_id, failed.redemption_id);
        assert_eq!(credited.state(), RedemptionState::Succeeded);
    }
}
