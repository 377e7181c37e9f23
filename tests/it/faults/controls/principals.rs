//! What belongs to whom, and what is recorded of what people do.

use std::time::Duration;

use holdfast::{domain::access::Role, rpc::pb};
use sqlx::AssertSqlSafe;

use super::{
    Stage,
    scenarios::{acquire, begin, broken, redeem, unless},
};
use crate::support::{checks::Broken, world::Clients};

/// One server, two accounts, and two who may redeem.
async fn two(stage: &mut Stage) -> (Clients, Clients) {
    stage.fleet.ask_who_calls().await;
    begin(stage, "").await.create_account("b", |_| {}).await;
    let a = stage.fleet.clients_as(0, "token:a", Role::Redeemer).await;
    (a, stage.fleet.clients_as(0, "token:b", Role::Redeemer).await)
}

pub(super) async fn another_s_lease_is_used(stage: &mut Stage) -> Vec<Broken> {
    let (mut a, mut b) = two(stage).await;
    let held = acquire(&mut a, 60.0).await;
    let renewed = b.renew(&held, Duration::from_secs(60)).await;
    unless(renewed.is_err(), "another's lease was renewed")
}

pub(super) async fn another_s_lease_is_redeemed_under(stage: &mut Stage) -> Vec<Broken> {
    let (mut a, mut b) = two(stage).await;
    let held = acquire(&mut a, 60.0).await;
    let redeemed = redeem(&mut b, &held, "theirs", &stage.fleet.code("THEIRS")).await;
    unless(redeemed.is_err(), "another's lease was redeemed under")
}

pub(super) async fn another_s_lease_is_released(stage: &mut Stage) -> Vec<Broken> {
    let (mut a, mut b) = two(stage).await;
    let held = acquire(&mut a, 60.0).await;
    let released = b.release(&held).await;
    unless(released.is_err(), "another's lease was released")
}

/// The same request of another, with the same card.
async fn again(stage: &mut Stage) -> Result<pb::Redemption, tonic::Status> {
    let (mut a, mut b) = two(stage).await;
    let code = stage.fleet.code("SAME");
    let (of_a, of_b) = (acquire(&mut a, 60.0).await, acquire(&mut b, 60.0).await);
    redeem(&mut a, &of_a, "same", &code).await.unwrap();
    let redeemed = redeem(&mut b, &of_b, "same", &code).await;
    if redeemed.is_err() {
        b.release(&of_b).await.unwrap();
    }
    redeemed
}

pub(super) async fn another_s_request_is_sent(stage: &mut Stage) -> Vec<Broken> {
    match again(stage).await {
        Ok(_) => broken("another's request was joined"),
        Err(_) => Vec::new(),
    }
}

pub(super) async fn another_s_card_is_sent(stage: &mut Stage) -> Vec<Broken> {
    let error = again(stage).await.unwrap_err();
    unless(!format!("{error:?}").contains("redemption_id"), "another's redemption was named")
}

pub(super) async fn an_operator_ends_another_s_lease(stage: &mut Stage) -> Vec<Broken> {
    let (mut a, _) = two(stage).await;
    let held = acquire(&mut a, 60.0).await;
    let mut operator = stage.fleet.clients_as(0, "token:ops", Role::Operator).await;
    operator.release(&held).await.unwrap();
    let recorded = "SELECT EXISTS (SELECT FROM audit_events WHERE action = 'ReleaseAccount')";
    let recorded: bool =
        sqlx::query_scalar(recorded).fetch_one(&mut stage.sql().await).await.unwrap();
    unless(recorded, "an operator's act is not in the trail")
}

pub(super) async fn an_event_of_the_trail_is_changed(stage: &mut Stage) -> Vec<Broken> {
    begin(stage, "").await;
    let change = "UPDATE audit_events SET principal = 'token:other'";
    let changed = sqlx::query(AssertSqlSafe(change)).execute(&mut stage.sql().await).await;
    unless(changed.is_err(), "an event of the trail was changed")
}
