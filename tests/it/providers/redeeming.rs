//! Redemptions over the profiles of real APIs, through faults of the provider, kills of it, and kills of the servers
//! while they redeem: no code is credited twice, none is lost, both sides know of the same credits, and what cannot be
//! found out is left to a person. The fleet compares ledgers and searches logs when it ends.
//!
//! `HOLDFAST_TEST_ITEMS` says how many cards each API gets, 100 where it does not.

use std::{env, sync::Arc, time::Duration};

use holdfast::{
    rpc::pb::{self, RedemptionState},
    simulator::faults::{Faults, Latency},
};
use sqlx::{Connection as _, PgConnection};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tonic::Status;

use crate::support::{
    books::Recorded,
    checks,
    fleet::{Able, Fleet, Setup},
    real::{MINOR, Real, prepare},
    world::{Clients, lease, seconds},
};

const POOL: &str = "real";
const SERVERS: usize = 3;
/// How many cards are redeemed at once.
const AT_ONCE: usize = 12;
/// How long a call may take before its caller asks another server.
const PATIENCE: Duration = Duration::from_secs(6);
/// How long all the cards may take to have been begun and answered.
const LIMIT: Duration = Duration::from_secs(300);

fn items() -> usize {
    env::var("HOLDFAST_TEST_ITEMS").map_or(100, |items| items.parse().unwrap())
}

fn setup() -> Setup {
    let able = Able { deduplicates: true, looks_up: true, cancels: true };
    Setup { able, serve: Vec::new(), provider: Vec::new() }
}

/// Wrong every second time.
fn faults() -> Faults {
    Faults {
        latency: Latency { min: Duration::from_millis(20), max: Duration::from_millis(200) },
        apply_then_drop: 8.0,
        drop_before_apply: 8.0,
        error_after_apply: 8.0,
        slow_202: 10.0,
        garbage: 6.0,
        busy: 8.0,
        lookup_error: 15.0,
        processing_time: Duration::from_millis(500),
        ..Faults::default()
    }
}

/// Redeems a card into any account, at one server after the other, until one tells that it was begun.
async fn redeem(servers: Vec<Clients>, card: usize, code: String) {
    for attempt in 0.. {
        let mut clients = servers[(card + attempt) % servers.len()].clone();
        let tried = timeout(PATIENCE, redeem_once(&mut clients, card, attempt, &code)).await;
        match tried {
            Ok(Ok(redemption)) if redemption.state() != RedemptionState::Submitted => return,
            _ => sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn redeem_once(
    clients: &mut Clients,
    card: usize,
    attempt: usize,
    code: &str,
) -> Result<pb::Redemption, Status> {
    let request_id = format!("redeem-{card}");
    let find = pb::GetRedemptionRequest {
        pool_id: POOL.to_owned(),
        request_id: request_id.clone(),
        ..Default::default()
    };
    if attempt > 0
        && let Ok(found) = clients.redemptions.get_redemption(find).await
    {
        return Ok(found.into_inner().redemption.unwrap());
    }
    let acquired = clients
        .acquire(|request| {
            request.pool_id = POOL.to_owned();
            request.request_id = format!("acquire-{card}-{attempt}");
            request.lease_duration = seconds(5.0);
            request.wait_timeout = seconds(5.0);
        })
        .await?;
    let redeemed = clients
        .redeem(&lease(&acquired), code, |request| {
            request.request_id = request_id;
            request.expected =
                Some(pb::Money { amount_minor: MINOR, currency_code: "USD".to_owned() });
            request.release_on_completion = true;
        })
        .await?;
    Ok(redeemed.redemption.unwrap())
}

/// Redeems all cards over an API. Answers with what is recorded in the end.
async fn run(real: Real) -> Vec<Recorded> {
    let items = items();
    let mut fleet = Fleet::start(setup()).await;
    for _ in 0..SERVERS {
        fleet.start_server(&[]).await;
    }
    let fake = fleet.start_fake(real).await;
    // One whose redemption is a person's stays locked, and one whose caller went away for a while.
    let (accounts, profile) = (items + 3 * AT_ONCE, fleet.fakes[fake].profile());
    prepare(&mut fleet.clients(0), real, profile, POOL, accounts).await;
    fleet.fakes[fake].set_faults(&faults()).await;

    let servers: Vec<_> = (0..SERVERS).map(|place| fleet.clients(place)).collect();
    let at_once = Arc::new(Semaphore::new(AT_ONCE));
    let mut redeeming = JoinSet::new();
    for card in 0..items {
        let (servers, at_once) = (servers.clone(), Arc::clone(&at_once));
        // Hyphens do not tell codes apart; letters do.
        let code = fleet.code(&format!("C{card}"));
        redeeming.spawn(async move {
            let _permit = at_once.acquire_owned().await.unwrap();
            redeem(servers, card, code).await;
        });
    }
    let all = async {
        while let Some(done) = redeeming.join_next().await {
            done.unwrap();
        }
    };
    let mut kills = [0, 0];
    tokio::select! {
        done = timeout(LIMIT, all) => done.expect("all cards are begun and answered"),
        () = kill_on(&mut fleet, fake, &mut kills) => {}
    }
    // A restart that was cut short is done again.
    for place in 0..SERVERS {
        if !fleet.servers[place].is_running() {
            fleet.restart_server(place).await;
        }
    }
    fleet.fakes[fake].revive().await;
    let [of_servers, of_the_fake] = kills;
    assert!(of_servers >= 4 && of_the_fake >= 2, "{kills:?} kills are too few");

    checks::everything_settles(&fleet.db_url).await;
    let mut db = PgConnection::connect(&fleet.db_url).await.unwrap();
    let recorded = fleet.fakes[fake].books().recorded(&mut db).await;
    assert_eq!(recorded.len(), items, "each card was begun once");
    let succeeded = recorded.iter().filter(|one| one.state == "SUCCEEDED").count();
    assert!(succeeded >= items / 3, "{succeeded} of {items} succeeded");
    recorded
}

/// Kills the servers in turn, and every third time the fake, until it is dropped.
async fn kill_on(fleet: &mut Fleet, fake: usize, kills: &mut [usize; 2]) {
    for turn in 0.. {
        sleep(Duration::from_millis(250)).await;
        if turn % 3 == 2 {
            fleet.fakes[fake].kill();
            kills[1] += 1;
            fleet.fakes[fake].revive().await;
            fleet.fakes[fake].set_faults(&faults()).await;
        } else {
            let place = kills[0] % SERVERS;
            fleet.servers[place].kill();
            kills[0] += 1;
            fleet.restart_server(place).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_are_polled_by_their_id_and_those_whose_id_was_lost_are_a_persons() {
    let recorded = run(Real::Task).await;
    let (known, lost): (Vec<_>, Vec<_>) = recorded.iter().partition(|one| one.task.is_some());
    // Nothing is deduplicated, nothing can be searched for, and nothing was sent twice.
    assert!(known.iter().all(|one| one.state != "NEEDS_REVIEW"), "{known:#?}");
    assert!(lost.iter().any(|one| one.state == "NEEDS_REVIEW"), "the id of some task was lost");
    assert!(lost.iter().all(|one| one.state != "SUCCEEDED"), "{lost:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idempotent_api_leaves_nothing_to_a_person() {
    let recorded = run(Real::Square).await;
    assert!(recorded.iter().all(|one| one.state != "NEEDS_REVIEW"), "{recorded:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_refuses_duplicates_is_searched_and_leaves_nothing_to_a_person() {
    let recorded = run(Real::Fiserv).await;
    assert!(recorded.iter().all(|one| one.state != "NEEDS_REVIEW"), "{recorded:#?}");
}
