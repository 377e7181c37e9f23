//! The caller is part of the lease: what one principal began another neither uses, joins nor reads.

use std::time::Duration;

use holdfast::{
    config::AccessArgs,
    domain::access::Role,
    rpc::pb::{self, AccountStatus, RedemptionState, batch_item_result::Outcome},
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{
    redeem::review::{left_for_review, resolve},
    support::{
        batch::{item, opening, run},
        tokens::ADMIN,
        wait::eventually,
        world::{Clients, POOL, World, eur, lease, metadata, reason, seconds},
    },
};

const A: &str = "token:a";
const B: &str = "token:b";

/// A server with an account for each, and clients of two who may redeem.
async fn two() -> (World, Clients, Clients) {
    let world = super::world(1, |_| {}).await;
    world.clients(0).await.create_accounts(2).await;
    let (a, b) = (
        world.clients_as(0, A, Role::Redeemer).await,
        world.clients_as(0, B, Role::Redeemer).await,
    );
    (world, a, b)
}

/// The caller may not, and is told what it would need.
fn denied(error: &Status, needs: &str) {
    assert_eq!(error.code(), Code::PermissionDenied, "{error:?}");
    assert_eq!((&*reason(error), &*metadata(error, "needs")), ("PERMISSION_DENIED", needs));
}

async fn get(
    clients: &mut Clients,
    redemption_id: &str,
    request_id: &str,
) -> Result<pb::Redemption, Status> {
    let request = pb::GetRedemptionRequest {
        pool_id: POOL.into(),
        redemption_id: redemption_id.into(),
        request_id: request_id.into(),
    };
    Ok(clients.redemptions.get_redemption(request).await?.into_inner().redemption.unwrap())
}

async fn list(clients: &mut Clients, batch_id: &str) -> Vec<(String, String)> {
    let request = pb::ListRedemptionsRequest {
        pool_id: POOL.into(),
        batch_id: batch_id.into(),
        ..Default::default()
    };
    let page = clients.redemptions.list_redemptions(request).await.unwrap().into_inner();
    let mut found: Vec<_> =
        page.redemptions.into_iter().map(|one| (one.principal, one.request_id)).collect();
    found.sort();
    found
}

#[tokio::test]
async fn another_s_lease_is_neither_renewed_nor_redeemed_under_nor_released() {
    let (mut world, mut a, mut b) = two().await;
    let held = a.acquire(|r| r.lease_duration = seconds(60.0)).await.unwrap();
    assert_eq!(held.lease.as_ref().unwrap().principal, A);
    let of = lease(&held);
    let before = a.account(&of.account_id).await;

    denied(&b.renew(&of, Duration::from_secs(600)).await.unwrap_err(), "own-lease");
    denied(&b.redeem(&of, &world.code("theirs"), |_| {}).await.unwrap_err(), "own-lease");
    denied(&b.release(&of).await.unwrap_err(), "operator");
    // Somebody whom a server does not ask for a name is not the one either.
    world.start_server_with(|args| args.access = AccessArgs::off()).await;
    let mut nobody = Clients::over(world.channel(1).await, a.journal().clone());
    denied(&nobody.renew(&of, Duration::from_secs(600)).await.unwrap_err(), "own-lease");
    // An operator ends the lease, and uses it no more than others do.
    let mut operator = world.clients_as(0, "token:ops", Role::Operator).await;
    denied(&operator.renew(&of, Duration::from_secs(600)).await.unwrap_err(), "own-lease");
    assert_eq!(a.account(&of.account_id).await.update_time, before.update_time, "nothing is done");

    let renewed = a.renew(&of, Duration::from_secs(120)).await.unwrap();
    assert_eq!(renewed.principal, A);
    let released = operator.release(&of).await.unwrap();
    assert_eq!(released.status(), AccountStatus::Waiting);
    let lost = a.renew(&of, Duration::from_secs(120)).await.unwrap_err();
    assert_eq!((&*reason(&lost), &*metadata(&lost, "cause")), ("LEASE_LOST", "released"));
    let history: Vec<_> = world
        .clients(0)
        .await
        .events(&of.account_id)
        .await
        .into_iter()
        .rev()
        .map(|event| (event.reason, event.actor, event.principal))
        .collect();
    let expected = [
        ("created", "api", ADMIN),
        ("acquired", "tester", A),
        ("renewed", "tester", A),
        ("released", "tester", "token:ops"),
    ];
    let expected = expected.map(|(why, actor, who)| (why.into(), actor.into(), who.into()));
    assert_eq!(history, expected);
}

#[tokio::test]
async fn a_lease_of_nobody_in_particular_is_anybody_s_who_redeems_in_the_pool() {
    let (mut world, mut a, _) = two().await;
    world.start_server_with(|args| args.access = AccessArgs::off()).await;
    let mut nobody = Clients::over(world.channel(1).await, a.journal().clone());
    let held = nobody.acquire(|_| {}).await.unwrap();
    assert_eq!(held.lease.as_ref().unwrap().principal, "");
    a.renew(&lease(&held), Duration::from_secs(60)).await.unwrap();
    let redeemed = a.redeem(&lease(&held), &world.code("found"), |_| {}).await.unwrap();
    assert_eq!(redeemed.redemption.unwrap().principal, A, "who began it");
    a.release(&lease(&held)).await.unwrap();
}

#[tokio::test]
async fn a_principal_is_kept_and_what_a_server_does_is_the_server_s() {
    let (world, mut a, _) = two().await;
    let held = a.acquire(|r| r.lease_duration = seconds(1.0)).await.unwrap();
    let redeemed = a.redeem(&lease(&held), &world.code("kept"), |_| {}).await.unwrap();
    let redemption = redeemed.redemption.unwrap();
    assert_eq!((redemption.state(), &*redemption.principal), (RedemptionState::Succeeded, A));
    let account_id = lease(&held).account_id;
    let admin = world.clients(0).await;
    let history = eventually(Duration::from_secs(10), "the sweeper ends the lease", async || {
        let events = admin.clone().events(&account_id).await;
        (events[0].reason == "expired").then_some(events)
    })
    .await;
    let who: Vec<_> = history.iter().rev().map(|e| (&*e.reason, &*e.principal)).collect();
    let expected = [
        ("created", ADMIN),
        ("acquired", A),
        ("redeem_begun", A),
        ("redeemed", "server"),
        ("expired", "server"),
    ];
    assert_eq!(who, expected);
}

#[tokio::test]
async fn a_request_id_is_its_principal_s_for_leases_and_redemptions() {
    let (world, mut a, mut b) = two().await;
    let acquire = |r: &mut pb::AcquireAccountRequest| r.request_id = "same".into();
    let (of_a, of_b) = (a.acquire(acquire).await.unwrap(), b.acquire(acquire).await.unwrap());
    assert_ne!(lease(&of_a).account_id, lease(&of_b).account_id, "another request");
    assert_eq!(lease(&a.acquire(acquire).await.unwrap()), lease(&of_a), "its own again");
    assert_eq!(lease(&b.acquire(acquire).await.unwrap()), lease(&of_b));

    let redeem = |r: &mut pb::RedeemRequest| r.request_id = "card".into();
    let (code_a, code_b) = (world.code("a"), world.code("b"));
    let first = a.redeem(&lease(&of_a), &code_a, redeem).await.unwrap();
    let second = b.redeem(&lease(&of_b), &code_b, redeem).await.unwrap();
    assert!(!first.replayed && !second.replayed);
    let again = b.redeem(&lease(&of_b), &code_b, redeem).await.unwrap();
    assert!(again.replayed);
    assert_eq!(again.redemption, second.redemption, "its own, and not the other's");
    for (clients, own) in [(&mut a, &first), (&mut b, &second)] {
        let own = own.redemption.as_ref().unwrap();
        assert_eq!(get(clients, "", "card").await.unwrap().redemption_id, own.redemption_id);
    }
    // Somebody else who may read everything has none of that name.
    let mut admin = world.clients(0).await;
    let none = get(&mut admin, "", "card").await.unwrap_err();
    assert_eq!(reason(&none), "REDEMPTION_NOT_FOUND");
    a.release(&lease(&of_a)).await.unwrap();
    b.release(&lease(&of_b)).await.unwrap();
}

#[tokio::test]
async fn another_s_redemption_is_neither_read_nor_named() {
    let (world, mut a, mut b) = two().await;
    let code = world.code("mine");
    let of_a = a.acquire(|_| {}).await.unwrap();
    let mine = a.redeem(&lease(&of_a), &code, |_| {}).await.unwrap().redemption.unwrap();
    let missing = get(&mut b, &mine.redemption_id, "").await.unwrap_err();
    assert_eq!(reason(&missing), "REDEMPTION_NOT_FOUND");
    let all = pb::ListRedemptionsRequest { pool_id: POOL.into(), ..Default::default() };
    for clients in [&mut a, &mut b] {
        denied(&clients.redemptions.list_redemptions(all.clone()).await.unwrap_err(), "auditor");
    }

    let of_b = b.acquire(|_| {}).await.unwrap();
    let in_use = b.redeem(&lease(&of_b), &code, |_| {}).await.unwrap_err();
    assert_eq!((in_use.code(), &*reason(&in_use)), (Code::FailedPrecondition, "CODE_IN_USE"));
    let told = format!("{in_use:?}");
    assert!(!told.contains(&mine.redemption_id) && !told.contains(&mine.request_id), "{told}");
    let details = in_use.get_error_details();
    let keys = &details.error_info().unwrap().metadata;
    assert!(!keys.contains_key("redemption_id") && keys["state"] == "SUCCEEDED", "{keys:?}");

    for role in [Role::Operator, Role::Auditor] {
        let mut reader = world.clients_as(0, &format!("token:{role:?}").to_lowercase(), role).await;
        let read = get(&mut reader, &mine.redemption_id, "").await.unwrap();
        assert_eq!((read.redemption_id, &*read.principal), (mine.redemption_id.clone(), A));
        assert_eq!(list(&mut reader, "").await, [(A.to_owned(), mine.request_id.clone())]);
    }
    let mut operator = world.clients_as(0, "token:ops", Role::Operator).await;
    let at_work = operator.acquire(|r| r.wait_timeout = seconds(0.0)).await;
    assert!(at_work.is_err(), "both accounts are leased");
    b.release(&lease(&of_b)).await.unwrap();
    let of_operator = operator.acquire(|_| {}).await.unwrap();
    let named = operator.redeem(&lease(&of_operator), &code, |_| {}).await.unwrap_err();
    assert_eq!(metadata(&named, "redemption_id"), mine.redemption_id);
    assert_eq!(metadata(&named, "request_id"), mine.request_id);
    operator.release(&lease(&of_operator)).await.unwrap();
    a.release(&lease(&of_a)).await.unwrap();
}

#[tokio::test]
async fn a_batch_is_its_principal_s() {
    let (world, mut a, mut b) = two().await;
    let items = |from: &str| [item("1", &world.code(&format!("{from}-1")))];
    let first = run(&mut a, opening("batch"), &items("a")).await.unwrap();
    assert_eq!(first.summary.succeeded, 1);
    // The same name of another is another batch: the same item is not the one that was redeemed before.
    let other = run(&mut b, opening("batch"), &items("b")).await.unwrap();
    assert_eq!((other.summary.succeeded, other.results[0].replayed), (1, false));
    let again = run(&mut b, opening("batch"), &items("b")).await.unwrap();
    assert!(again.results[0].replayed);
    let Some(Outcome::Redemption(own)) = &again.results[0].outcome else { panic!("no redemption") };
    assert_eq!(own.principal, B);
    // With the other's card: it is in use, and by whom is not told.
    let stolen = run(&mut b, opening("other"), &items("a")).await.unwrap();
    let Some(Outcome::Error(error)) = &stolen.results[0].outcome else { panic!("no error") };
    assert_eq!(error.message, "the code is redeemed already by another principal");

    let request_id = "batch:batch:1".to_owned();
    let (of_a, of_b) = ((A.to_owned(), request_id.clone()), (B.to_owned(), request_id));
    let mut auditor = world.clients_as(0, "token:audit", Role::Auditor).await;
    assert_eq!(list(&mut auditor, "batch").await, [of_a, of_b]);
}

#[tokio::test]
async fn a_word_about_a_redemption_is_its_principal_s_whatever_the_caller_says() {
    let world = super::world(1, |_| {}).await;
    let mut operator = world.clients_as(0, "token:ops", Role::Operator).await;
    operator.create_account("a", |_| {}).await;
    let (held, open) = left_for_review(&world, &mut operator, &world.code("word")).await;
    let request = pb::ResolveRedemptionRequest {
        pool_id: POOL.into(),
        redemption_id: open.redemption_id.clone(),
        state: RedemptionState::Succeeded.into(),
        amount: Some(eur(1000)),
        reason: "their record".into(),
        resolved_by: "token:somebody-else".into(),
        recorded_amount_is_wrong: true,
        ..Default::default()
    };
    let resolved = resolve(&mut operator, request).await.unwrap();
    let resolution = resolved.resolution.unwrap();
    let who = (&*resolution.resolved_by, &*resolution.principal);
    assert_eq!(who, ("token:somebody-else", "token:ops"));
    let event = operator.events(&open.account_id).await.remove(0);
    assert_eq!((&*event.actor, &*event.principal), ("token:somebody-else", "token:ops"));
    operator.release(&held).await.unwrap();
}

#[tokio::test]
async fn a_change_by_hand_is_the_database_user_s() {
    let (world, ..) = two().await;
    let mut db = world.sql().await;
    let pause = "UPDATE accounts SET paused = true WHERE account_id = 'a-000'";
    sqlx::query(pause).execute(&mut db).await.unwrap();
    let event = world.clients(0).await.events("a-000").await.remove(0);
    assert!(event.principal.starts_with("database:"), "{event:?}");
}
