//! The reconciler's recovery actions, over providers with different capabilities.

use std::time::Duration;

use holdfast::{
    rpc::pb::{self, RedemptionState},
    simulator::{
        faults::{Fault, Faults},
        ledger,
    },
};

use crate::support::{
    fleet::{Able, Fleet, Setup},
    wait::eventually,
    world::{POOL, lease},
};

const LIMIT: Duration = Duration::from_secs(30);

/// Redeems a card that meets a fault, over such a provider, and answers with the redemption when it
/// is settled or a person's.
async fn redeem(
    able: Able,
    fault: Fault,
    serve: &[&str],
    provider: &[&str],
) -> (Fleet, pb::Redemption) {
    let flags = |flags: &[&str]| flags.iter().map(|flag| (*flag).to_owned()).collect();
    let setup = Setup { able, serve: flags(serve), provider: flags(provider) };
    let mut fleet = Fleet::start(setup).await;
    fleet.start_server(&[]).await;
    let code = fleet.code("LADDER");
    // As long as it processes, it says so; the processing itself is the provider's flag.
    let faults = Faults {
        rules: Faults::of_card(&code, &[fault]),
        processing_time: Duration::from_secs(600),
        ..Faults::default()
    };
    fleet.set_faults(&faults).await;
    let mut clients = fleet.clients(0);
    clients.create_pool(POOL).await;
    clients.create_account("a", |_| {}).await;
    let held = lease(&clients.acquire(|_| {}).await.unwrap());
    let first = clients.redeem(&held, &code, |r| r.request_id = "r".to_owned()).await.unwrap();
    let id = first.redemption.unwrap().redemption_id;
    let redemption = eventually(LIMIT, "it is settled, or a person's", async || {
        let redemption = clients.redemption(&id).await;
        let open = [RedemptionState::Submitted, RedemptionState::InDoubt];
        (!open.contains(&redemption.state())).then_some(redemption)
    })
    .await;
    (fleet, redemption)
}

fn reason(redemption: &pb::Redemption) -> &str {
    redemption.failure.as_ref().map_or("", |failure| &failure.reason)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_only_counts_keys_once_is_asked_by_sending_again() {
    let able = Able { deduplicates: true, looks_up: false, cancels: false };
    let (fleet, redemption) = redeem(able, Fault::ApplyThenDrop, &[], &[]).await;
    assert_eq!(redemption.state(), RedemptionState::Succeeded);
    assert_eq!(ledger::read(&fleet.ledger()).unwrap().len(), 1, "credited once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_at_work_for_too_long_is_cancelled() {
    for looks_up in [true, false] {
        let able = Able { deduplicates: true, looks_up, cancels: true };
        let (_fleet, redemption) = redeem(able, Fault::Slow202, &[], &[]).await;
        assert_eq!(
            (redemption.state(), reason(&redemption)),
            (RedemptionState::Failed, "CANCELLED")
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_at_work_for_too_long_and_cannot_cancel_is_left_to_a_person() {
    let able = Able { deduplicates: false, looks_up: true, cancels: false };
    let (fleet, redemption) = redeem(able, Fault::Slow202, &[], &[]).await;
    assert_eq!(redemption.state(), RedemptionState::NeedsReview);
    assert_eq!(reason(&redemption), "UNRESOLVED");
    drop(fleet);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_only_cancels_is_cancelled_or_says_that_it_is_too_late() {
    let able = Able { deduplicates: false, looks_up: false, cancels: true };
    let (_fleet, redemption) = redeem(able, Fault::DropBeforeApply, &[], &[]).await;
    assert_eq!((redemption.state(), reason(&redemption)), (RedemptionState::Failed, "CANCELLED"));
    let (_fleet, redemption) = redeem(able, Fault::ApplyThenDrop, &[], &[]).await;
    assert_eq!(redemption.state(), RedemptionState::NeedsReview, "how much, it does not tell");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_shown_late_is_waited_for_and_nothing_else_is_done() {
    let able = Able { deduplicates: false, looks_up: true, cancels: true };
    let late = ["--visibility-lag=1500ms"];
    let horizon = ["--provider-visibility-horizon=2s"];
    let (fleet, redemption) = redeem(able, Fault::ApplyThenDrop, &horizon, &late).await;
    assert_eq!(redemption.state(), RedemptionState::Succeeded, "not cancelled, not sent again");
    assert_eq!(ledger::read(&fleet.ledger()).unwrap().len(), 1);
}
