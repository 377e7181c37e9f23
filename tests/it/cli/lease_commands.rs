//! `holdfast lease end`, as an operator runs it.

use std::time::Duration;

use holdfast::{
    rpc::pb::{AccountStatus, RedemptionState},
    simulator::faults::{Fault, Faults},
};

use crate::support::{
    program::run,
    wait::eventually,
    world::{POOL, World, lease, metadata, reason},
};

const END: [&str; 5] = ["lease", "end", "a", "--pool", POOL];

#[tokio::test]
async fn an_operator_ends_the_lease_that_is_on_an_account() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;
    run(&world, &END).await.says(1, &["account a of pool", "has no lease"]);
    let held = lease(&clients.acquire(|_| {}).await.unwrap());
    let ended = run(&world, &[&END[..], &["--format", "csv"]].concat()).await;
    assert!(ended.says(0, &[]).stdout.contains("WAITING"), "{ended:?}");
    let lost = clients.redeem(&held, &world.code("late"), |_| {}).await.unwrap_err();
    assert_eq!((&*reason(&lost), &*metadata(&lost, "cause")), ("LEASE_LOST", "released"));
    run(&world, &["lease", "end", "b", "--pool", POOL]).await.says(1, &["account b"]);
}

#[tokio::test]
async fn a_lease_under_which_a_card_is_in_doubt_ends_with_its_outcome() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;
    let code = world.code("doubt");
    let rules = Faults::of_card(&code, &[Fault::ErrorAfterApply]);
    world.set_faults(Faults { rules, lookup_error: 100.0, ..Faults::default() });
    let held = lease(&clients.acquire(|_| {}).await.unwrap());
    let redeemed = clients.redeem(&held, &code, |_| {}).await.unwrap().redemption.unwrap();
    assert_eq!(redeemed.state(), RedemptionState::InDoubt);
    let ends = format!("the lease ends when redemption {} has an outcome", redeemed.redemption_id);
    run(&world, &END).await.says(0, &[&ends]);
    assert_eq!(clients.status_of("a").await, AccountStatus::Locking);
    world.set_faults(Faults::default());
    eventually(Duration::from_secs(30), "it is given back with the outcome", async || {
        (clients.status_of("a").await == AccountStatus::Processing).then_some(())
    })
    .await;
}
