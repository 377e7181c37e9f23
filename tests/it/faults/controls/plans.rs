//! What is played about plans. As in [`super::scenarios`].

use std::time::Duration;

use holdfast::rpc::pb;

use super::{
    POOL, Stage,
    scenarios::{LIMIT, begin, broken, stands_still, unless},
};
use crate::support::{
    checks::Broken,
    plans::psql,
    proxy::postgres::{Fault, statement},
    wait::eventually,
    world::{Clients, eur, lease, seconds},
};

/// What each card is worth.
const CARD: i64 = 1000;

/// An account that two cards fill, with an hour between them if so, and a lease on it.
async fn on_a_plan(
    stage: &mut Stage,
    points: &'static str,
    pause: Option<f64>,
) -> (Clients, pb::LeaseRef) {
    let mut clients = with_a_plan(stage, points, pause).await;
    let acquired = clients.acquire(|r| r.selector = Some(of_account(None))).await.unwrap();
    (clients, lease(&acquired))
}

/// The same without the lease.
async fn with_a_plan(stage: &mut Stage, points: &'static str, pause: Option<f64>) -> Clients {
    let mut clients = begin(stage, points).await;
    let plan = pb::Plan {
        pool_id: POOL.to_owned(),
        plan_id: "plan".to_owned(),
        target: Some(eur(2 * CARD)),
        redemption_interval: pause.and_then(seconds),
        denominations: Some(pb::plan::Denominations::MultiplesOf(eur(CARD))),
        ..Default::default()
    };
    clients.pools.create_plan(pb::CreatePlanRequest { plan: Some(plan) }).await.unwrap();
    clients.create_account("p", |account| account.plan_id = "plan".to_owned()).await;
    clients
}

fn of_account(expected: Option<i64>) -> pb::AccountSelector {
    pb::AccountSelector {
        account_id: "p".to_owned(),
        expected: expected.map(eur),
        ..Default::default()
    }
}

async fn redeem(
    clients: &mut Clients,
    held: &pb::LeaseRef,
    request_id: &str,
    code: &str,
) -> Result<pb::RedeemResponse, tonic::Status> {
    let change = |request: &mut pb::RedeemRequest| {
        request.request_id = request_id.to_owned();
        request.expected = Some(eur(CARD));
    };
    clients.redeem(held, code, change).await
}

pub(super) async fn a_card_is_too_much_for_its_plan(stage: &mut Stage) -> Vec<Broken> {
    let (mut clients, held) = on_a_plan(stage, "", None).await;
    for name in ["first", "second"] {
        let code = stage.fleet.code(name);
        redeem(&mut clients, &held, name, &code).await.unwrap();
    }
    let third = redeem(&mut clients, &held, "third", &stage.fleet.code("third")).await;
    unless(third.is_err(), "a full account was redeemed into")
}

/// One card fills the account from then on. The server is not told.
async fn lower_the_target(stage: &Stage) {
    let lower = format!("UPDATE plans SET target_minor = {CARD}");
    psql(&mut stage.sql().await, &lower).await;
}

pub(super) async fn a_target_is_lowered_between_two_cards(stage: &mut Stage) -> Vec<Broken> {
    let (mut clients, held) = on_a_plan(stage, "", None).await;
    redeem(&mut clients, &held, "first", &stage.fleet.code("first")).await.unwrap();
    let code = stage.fleet.code("second");
    // Decided before the target is lowered, and written after it.
    let on_its_way = Fault::DelayRequest(Duration::from_secs(2));
    let on_its_way = stage.proxy.fault(statement("-- Begin:"), on_its_way);
    let second = tokio::spawn(async move { redeem(&mut clients, &held, "second", &code).await });
    eventually(LIMIT, "the statement is on its way", async || {
        (on_its_way.matched() == 1).then_some(())
    })
    .await;
    lower_the_target(stage).await;
    let second = second.await.unwrap();
    unless(second.is_err(), "a full account was redeemed into")
}

pub(super) async fn a_target_is_lowered_before_the_outcome_is_recorded(
    stage: &mut Stage,
) -> Vec<Broken> {
    let mut clients = with_a_plan(stage, "settle.before=stop", None).await;
    // Leased at another server: this one does not read by itself what others change.
    let other = stage.start_server("").await;
    let acquire = |r: &mut pb::AcquireAccountRequest| r.selector = Some(of_account(None));
    let held = lease(&stage.fleet.clients(other).acquire(acquire).await.unwrap());
    let code = stage.fleet.code("first");
    let (mut caller, lease) = (clients.clone(), held.clone());
    let call = tokio::spawn(async move { redeem(&mut caller, &lease, "first", &code).await });
    stands_still(stage).await;
    lower_the_target(stage).await;
    stage.fleet.servers[0].go_on();
    call.await.unwrap().unwrap();
    let account = clients.release(&held).await.unwrap();
    let is_completed = account.status() == pb::AccountStatus::Completed;
    unless(is_completed, "a full account is not COMPLETED")
}

pub(super) async fn a_card_follows_at_once(stage: &mut Stage) -> Vec<Broken> {
    let (mut clients, held) = on_a_plan(stage, "", Some(3600.0)).await;
    redeem(&mut clients, &held, "first", &stage.fleet.code("first")).await.unwrap();
    let second = redeem(&mut clients, &held, "second", &stage.fleet.code("second")).await;
    unless(second.is_err(), "an account that rests was redeemed into")
}

pub(super) async fn an_account_that_rests_is_asked_for(stage: &mut Stage) -> Vec<Broken> {
    let (mut clients, held) = on_a_plan(stage, "", Some(3600.0)).await;
    redeem(&mut clients, &held, "first", &stage.fleet.code("first")).await.unwrap();
    clients.release(&held).await.unwrap();
    let acquired = clients.acquire(|r| r.selector = Some(of_account(None))).await;
    unless(acquired.is_err(), "an account that rests was leased")
}

pub(super) async fn a_card_is_for_an_account_that_rests(stage: &mut Stage) -> Vec<Broken> {
    let (mut clients, held) = on_a_plan(stage, "", Some(3600.0)).await;
    redeem(&mut clients, &held, "first", &stage.fleet.code("first")).await.unwrap();
    clients.release(&held).await.unwrap();
    let request = pb::RedeemCardRequest {
        request_id: "second".to_owned(),
        pool_id: POOL.to_owned(),
        holder: "till".to_owned(),
        code: stage.fleet.code("second"),
        selector: Some(of_account(None)),
        ..Default::default()
    };
    let redeemed = clients.redemptions.redeem_card(request).await;
    unless(redeemed.is_err(), "an account that rests got a card")
}

pub(super) async fn a_paused_account_is_redeemed_into(stage: &mut Stage) -> Vec<Broken> {
    let (mut clients, held) = on_a_plan(stage, "", None).await;
    let account = pb::Account {
        pool_id: POOL.to_owned(),
        account_id: "p".to_owned(),
        paused: Some(true),
        ..Default::default()
    };
    let request = pb::UpdateAccountRequest { account: Some(account), update_mask: None };
    clients.accounts.update_account(request).await.unwrap();
    let redeemed = redeem(&mut clients, &held, "paused", &stage.fleet.code("paused")).await;
    unless(redeemed.is_err(), "a paused account was redeemed into")
}

pub(super) async fn an_account_is_asked_for_a_card_that_it_does_not_take(
    stage: &mut Stage,
) -> Vec<Broken> {
    let (mut clients, held) = on_a_plan(stage, "", None).await;
    clients.release(&held).await.unwrap();
    let acquired = clients.acquire(|r| r.selector = Some(of_account(Some(CARD / 2)))).await;
    match acquired {
        Ok(_) => broken("an account was leased for a card that it does not take"),
        Err(_) => Vec::new(),
    }
}
