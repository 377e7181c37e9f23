//! The crash table of real APIs: a server is killed at each step that the built-in contract does not have, or that ends
//! otherwise over tasks, over a key that is replayed and over one that is rejected.

use std::time::Duration;

use holdfast::{
    failpoints::{Side, Step},
    rpc::pb::{self, RedemptionState},
    simulator::faults::{Fault, Faults},
};
use tokio::time::timeout;

use crate::support::{
    cells::{Action, charge, find, is_known, play_all},
    fleet::{Able, Fleet, Setup},
    real::{MINOR, Real, prepare},
    wait::eventually,
    world::{lease, seconds},
};

const POOL: &str = "real";
/// How long a cell may take to end.
const CELL: Duration = Duration::from_secs(60);

/// How a cell ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The card is credited, once.
    Credited,
    /// It is a person's.
    Review,
    /// It is credited. Or it was never sent, and the provider says so, late enough.
    CreditedOrUnsent,
}

#[derive(Clone, Copy, Debug)]
struct Cell {
    real: Real,
    step: Step,
    side: Side,
    /// What goes wrong at the provider, so that the step is reached.
    fault: Option<Fault>,
    end: End,
}

fn both(real: Real, step: Step, fault: Option<Fault>, ends: [End; 2]) -> [Cell; 2] {
    let sides = [(Side::Before, ends[0]), (Side::After, ends[1])];
    sides.map(|(side, end)| Cell { real, step, side, fault, end })
}

/// Nothing is found by anything but its task: what was not committed is a person's.
fn of_tasks() -> Vec<Cell> {
    use End::{Credited, Review};
    let both = |step, ends| both(Real::Task, step, None, ends);
    [
        both(Step::Send, [Review, Review]),
        both(Step::RecordTask, [Review, Credited]),
        both(Step::LookUp, [Credited, Credited]),
        both(Step::Settle, [Credited, Credited]),
    ]
    .concat()
}

fn of_a_search(real: Real) -> Vec<Cell> {
    use End::{Credited, CreditedOrUnsent};
    let both = |step, fault, end| both(real, step, Some(fault), end);
    let lost = Fault::DropBeforeApply;
    [
        both(Step::Send, lost, [CreditedOrUnsent, CreditedOrUnsent]),
        both(Step::Find, Fault::ApplyThenDrop, [Credited, Credited]),
        both(Step::NoteSend, lost, [CreditedOrUnsent, CreditedOrUnsent]),
        both(Step::SendAgain, lost, [CreditedOrUnsent, Credited]),
    ]
    .concat()
}

async fn play(cell: Cell) {
    let able = Able { deduplicates: true, looks_up: true, cancels: true };
    let mut fleet = Fleet::start(Setup { able, serve: Vec::new(), provider: Vec::new() }).await;
    let fake = fleet.start_fake(cell.real).await;
    let charge = charge(cell.step, cell.side, Action::Kill);
    fleet.start_server(&[("HOLDFAST_CRASH_POINTS", &charge)]).await;
    let mut clients = fleet.clients(0);
    prepare(&mut clients, cell.real, fleet.fakes[fake].profile(), POOL, 1).await;
    let code = fleet.code("CARD");
    let rules = cell.fault.map_or(Vec::new(), |fault| Faults::of_card(&code, &[fault]));
    fleet.fakes[fake].set_faults(&Faults { rules, ..Faults::default() }).await;

    let acquire = clients.acquire(|request| {
        request.pool_id = POOL.to_owned();
        request.lease_duration = seconds(60.0);
    });
    let held = lease(&acquire.await.unwrap());
    let redeem = clients.redeem(&held, &code, |request| {
        request.request_id = "card".to_owned();
        request.expected = Some(pb::Money { amount_minor: MINOR, currency_code: "USD".to_owned() });
        request.release_on_completion = true;
    });
    // Its caller is not answered, or with doubt: the server is killed on the way, or later.
    let _ = timeout(CELL, redeem).await.expect("an answer, or none");
    eventually(CELL, &format!("{cell:?} strikes"), async || fleet.first_is_gone().then_some(()))
        .await;
    let place = fleet.start_server(&[]).await;
    let mut clients = fleet.clients(place);
    let redemption = eventually(CELL, &format!("{cell:?} ends"), async || {
        let found = find(&mut clients, POOL, "card").await.unwrap();
        is_known(&found).then_some(found)
    })
    .await;
    let reason = redemption.failure.as_ref().map(|failure| &*failure.reason);
    let is_as_expected = match (cell.end, redemption.state()) {
        (End::Credited | End::CreditedOrUnsent, RedemptionState::Succeeded) => true,
        (End::CreditedOrUnsent, RedemptionState::Failed) => reason == Some("NOT_EXECUTED"),
        (End::Review, RedemptionState::NeedsReview) => reason == Some("UNRESOLVED"),
        _ => false,
    };
    assert!(is_as_expected, "{cell:?}: {redemption:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_anywhere_over_tasks_a_committed_task_is_credited_and_a_lost_one_is_a_persons() {
    play_all(of_tasks(), play).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_anywhere_over_an_api_that_replays_keys_nothing_is_lost_or_doubled() {
    play_all(of_a_search(Real::Square), play).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_anywhere_over_an_api_that_rejects_keys_nothing_is_lost_or_doubled() {
    play_all(of_a_search(Real::Fiserv), play).await;
}
