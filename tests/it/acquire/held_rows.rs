//! Rows that somebody else holds, and many calls on one account: neither holds up what has nothing to do with it.

use std::time::Duration;

use futures_util::future::join_all;
use holdfast::{
    domain::{
        account::Refusal,
        id::{AccountId, FencingToken, PoolId, RedemptionId, RequestId},
        lease::LeaseRef,
        principal::{Principal, RequestKey},
    },
    rpc::pb::{self, RedemptionState},
    store::{
        begin::{BeginRefusal, Begun, NewRedemption, SendLimits},
        lease::LeaseAnswer,
    },
};
use sqlx::{Connection as _, PgConnection};

use crate::{
    redeem::review::{left_for_review, resolve, word},
    support::{
        wait::eventually,
        world::{POOL, World, lease, seconds},
    },
};

const LIMIT: Duration = Duration::from_secs(10);
const CALLS: usize = 200;

fn lease_ref(lease: &pb::LeaseRef) -> LeaseRef {
    LeaseRef {
        pool_id: PoolId::parse(POOL).unwrap(),
        account_id: AccountId::parse(&lease.account_id).unwrap(),
        token: FencingToken(lease.fencing_token),
    }
}

/// How many statements with this head wait for a lock.
async fn waiting_for_a_lock(db: &mut PgConnection, head: &str) -> i64 {
    sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND wait_event_type = 'Lock' AND starts_with(query, $1)",
    )
    .bind(head)
    .fetch_one(db)
    .await
    .unwrap()
}

#[tokio::test]
async fn a_redemption_that_somebody_holds_delays_no_other_account() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;
    let (held, open) = left_for_review(&world, &mut clients, &world.code("held")).await;
    clients.create_account("b", |_| {}).await;
    let other = lease(&clients.acquire(|_| {}).await.unwrap());
    let (mut db, mut person) = (world.sql().await, world.sql().await);
    let mut transaction = person.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM redemptions FOR UPDATE").execute(&mut *transaction).await.unwrap();
    let resolving = tokio::spawn({
        let (mut clients, credited) = (clients.clone(), open.amount.clone());
        async move {
            let request = pb::ResolveRedemptionRequest {
                amount: credited,
                ..word(&open, RedemptionState::Succeeded)
            };
            resolve(&mut clients, request).await
        }
    });
    // It waits by itself, and not the statement that changes accounts.
    eventually(LIMIT, "the settlement waits for its redemption", async || {
        let waits = waiting_for_a_lock(&mut db, "-- Waits until nobody holds a redemption").await;
        assert_eq!(waiting_for_a_lock(&mut db, "-- Apply:").await, 0);
        (waits == 1).then_some(())
    })
    .await;
    clients.release(&other).await.unwrap();
    transaction.rollback().await.unwrap();
    assert_eq!(resolving.await.unwrap().unwrap().state(), RedemptionState::Succeeded);
    clients.release(&held).await.unwrap();
}

#[tokio::test]
async fn ending_leases_waits_for_no_account_that_somebody_holds() {
    let world = World::with(|args| args.sweep_interval = Duration::from_secs(3600), 1).await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;
    clients.acquire(|request| request.lease_duration = seconds(1.0)).await.unwrap();
    let mut person = world.sql().await;
    let mut transaction = person.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM accounts FOR UPDATE").execute(&mut *transaction).await.unwrap();
    let (store, pool_id) = (world.store(), PoolId::parse(POOL).unwrap());
    let mut db = world.sql().await;
    eventually(LIMIT, "the lease runs out", async || {
        let is_over = "SELECT count(*) FROM accounts WHERE lease_expires_at <= now()";
        let is_over: i64 = sqlx::query_scalar(is_over).fetch_one(&mut db).await.unwrap();
        (is_over == 1).then_some(())
    })
    .await;
    // An account that is waited for is an error after the time that a lock may take.
    let ended = store.expire(&pool_id, None, 100, "test").await.unwrap();
    assert!(ended.rows.is_empty(), "{ended:?}");
    transaction.rollback().await.unwrap();
    let ended = store.expire(&pool_id, None, 100, "test").await.unwrap();
    assert_eq!(ended.rows.len(), 1, "it is not left out either");
}

#[tokio::test]
async fn many_renewals_of_one_lease_are_all_done() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;
    let held = lease(&clients.acquire(|_| {}).await.unwrap());
    let (store, of) = (world.store(), lease_ref(&held));
    let renewals =
        (0..CALLS).map(|_| store.renew(&of, Duration::from_secs(60), Principal::anonymous()));
    for answer in join_all(renewals).await {
        assert!(matches!(answer.unwrap(), LeaseAnswer::Done(_)));
    }
    let renewed = "SELECT count(*) FROM account_events WHERE reason = 'renewed'";
    let renewed: i64 = sqlx::query_scalar(renewed).fetch_one(&mut world.sql().await).await.unwrap();
    assert_eq!(usize::try_from(renewed).unwrap(), CALLS);
    clients.release(&held).await.unwrap();
}

#[tokio::test]
async fn many_begins_under_one_lease_are_one_and_the_others_are_told_of_it() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;
    let held = lease(&clients.acquire(|_| {}).await.unwrap());
    let store = world.store();
    let begins = (0..CALLS).map(|_| {
        let redemption_id = RedemptionId::new();
        let mut code_fingerprint = [0; 32];
        code_fingerprint[..16].copy_from_slice(redemption_id.0.as_bytes());
        let new = NewRedemption {
            redemption_id,
            attempt: 1,
            request: RequestKey::new(Principal::anonymous(), RequestId::random()),
            release_on_completion: true,
            code_fingerprint: code_fingerprint.into(),
            code_ciphertext: vec![1],
            code_last4: String::new(),
            expected_minor: None,
            expected_learned: false,
            profile: holdfast::provider::profile::Profile::built_in().pinned(),
        };
        let moment = Duration::from_millis(1);
        let (store, lease) = (&store, lease_ref(&held));
        async move {
            store.begin(&lease, new, SendLimits { not_after: moment, take_over: moment }).await
        }
    });
    let mut recorded = Vec::new();
    for begun in join_all(begins).await {
        match begun.unwrap() {
            Begun::Recorded { redemption, .. } => recorded.push(redemption.redemption_id),
            Begun::Refused(BeginRefusal::Account(Refusal::RedemptionOpen(_), _)) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(recorded.len(), 1);
    // Nothing was sent, and its code cannot be read: a person decides.
    let open = eventually(LIMIT, "it is for a person", async || {
        let open = clients.redemption(&recorded[0].to_string()).await;
        (open.state() == RedemptionState::NeedsReview).then_some(open)
    })
    .await;
    resolve(&mut clients, word(&open, RedemptionState::Failed)).await.unwrap();
}
