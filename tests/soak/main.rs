//! The soak: servers on one database, clients with batches and single cards, providers that go wrong
//! one time in ten, and a nemesis that kills, stops, cuts and restarts what it likes. The providers are
//! the built-in contract, and fakes of three APIs by their profiles: one that replays a key, one that
//! refuses it, one of tasks. A person settles what has no task.
//!
//! A program of its own beside the other tests, because its last line is for machines: a JSON object
//! with the tallies. It exits with 1 when a promise was broken. `make soak` runs it for as long as it
//! is told, `make test` for a moment.
//!
//! | variable | what |
//! |---|---|
//! | `HOLDFAST_SOAK_MINUTES` | how long the faults go on; 0.4 when not set |
//! | `HOLDFAST_SOAK_KILLS` | goes on until so many servers were killed, too |
//! | `HOLDFAST_SOAK_REDEMPTIONS` | goes on until so many cards were redeemed, too |
//! | `HOLDFAST_SOAK_SERVERS` | how many servers there are; 3 when not set |
//! | `HOLDFAST_SOAK_SEED` | where the dice begin; printed, by chance when not set |
//!
//! The same seed throws the same dice: the same faults in the same order, the same codes in the same
//! batches. When each falls into the work is up to the machine.

#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the rules are for the program: tests look into the database, and play servers and clients"
)]
#![allow(clippy::unwrap_used, reason = "a panic is how a soak fails that cannot go on")]
#![allow(dead_code, reason = "the support is the other tests', who use all of it")]
#![allow(clippy::print_stdout, reason = "what it prints is what it is for")]

#[path = "../it/support/mod.rs"]
mod support;

mod load;
mod nemesis;
mod person;
mod settings;
mod tally;

use std::{
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use holdfast::simulator::faults::{Faults, Latency};
use sqlx::{Connection as _, PgConnection};
use support::{
    checks::Broken,
    fleet::{Able, Fleet, Setup},
    postgres::OwnPostgres,
    proxy::{Proxy, postgres::Postgres},
    real::{Real, prepare},
    world::POOL,
};
use tokio_util::sync::CancellationToken;

use self::{nemesis::Nemesis, settings::Settings, tally::Tally};

/// Accounts of each pool, which clients and batches compete for.
const ACCOUNTS: usize = 96;
/// The provider's longest processing time, as the servers are told. What is in doubt when the faults
/// stop is settled or listed within twice as long.
const MAX_PROCESSING: Duration = Duration::from_secs(5);

/// Where a process listens, and what goes wrong.
const QUIET: &str = "--log=warn,holdfast::app=info,holdfast::cli::simulate=info";

fn main() -> ExitCode {
    // `cargo test NAME` asks for other tests.
    let asked_for: Vec<_> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    if !asked_for.is_empty() && !asked_for.iter().any(|name| "soak".contains(name.as_str())) {
        return ExitCode::SUCCESS;
    }
    holdfast::embedded::leave_out_pg_variables().unwrap();
    let settings = Settings::from_env();
    println!("soak: {settings}");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (tally, broken) = runtime.block_on(soak(&settings));
    for promise in &broken {
        println!("broken: {promise}");
    }
    println!("{}", tally.json(&settings, broken.len()));
    if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn soak(settings: &Settings) -> (Arc<Tally>, Vec<Broken>) {
    // Synced to disk, as where it matters: what was acknowledged must be there after every crash.
    let postgres = OwnPostgres::start(&["fsync=on"]).await;
    migrate(&postgres.url()).await;
    let proxy = Proxy::<Postgres>::before(&postgres.url());
    let db_url = proxy.url(&postgres.url());
    let mut fleet = Fleet::over(setup(), db_url, None).await;
    for _ in 0..settings.servers {
        fleet.start_server(&[]).await;
    }
    let mut clients = fleet.clients(0);
    clients.create_pool(POOL).await;
    clients.create_accounts(ACCOUNTS).await;
    for (pool_id, real) in load::POOLS {
        let Some(real) = real else { continue };
        let fake = fleet.start_fake(real).await;
        prepare(&mut clients, real, fleet.fakes[fake].profile(), pool_id, ACCOUNTS).await;
        fleet.fakes[fake].set_faults(&faults()).await;
    }
    fleet.set_faults(&faults()).await;

    let tally = Arc::new(Tally::default());
    let stop = CancellationToken::new();
    let mut load = load::Load::start(settings, &fleet, &tally, &stop);
    let person = person::Person::start(&fleet, &postgres.url());
    let mut stage = nemesis::Stage { fleet, postgres, proxy };
    let watching = async {
        watch(settings, &tally).await;
        stop.cancel();
    };
    tokio::join!(Nemesis::new(settings, &mut stage, &tally, &stop).run(), watching);

    let nemesis::Stage { mut fleet, postgres, proxy } = stage;
    fleet.set_faults(&Faults::default()).await;
    for fake in &fleet.fakes {
        fake.set_faults(&Faults::default()).await;
    }
    println!("the faults have stopped; what is in doubt is settled, what was begun is finished");
    let stopped_at = Instant::now();
    let mut broken = doubt_ends(&postgres.url(), &tally, stopped_at).await;
    broken.extend(load.finish().await);
    person.go_home().await;
    broken.extend(only_tasks_are_a_persons(&postgres.url()).await);
    tally.look_at(&postgres.url()).await;
    broken.extend(fleet.finish().await);
    drop(proxy);
    drop(postgres);
    (tally, broken)
}

fn setup() -> Setup {
    let flags = [
        "--database-connections=8",
        "--provider-timeout=500ms",
        "--provider-connect-timeout=250ms",
        "--provider-send-window=1s",
        "--provider-max-processing-time=5s",
        QUIET,
    ];
    Setup {
        able: Able { deduplicates: true, looks_up: true, cancels: true },
        serve: flags.map(str::to_owned).to_vec(),
        provider: vec!["--processing-time=400ms".to_owned(), QUIET.to_owned()],
    }
}

/// Wrong one time in ten.
pub(crate) fn faults() -> Faults {
    Faults {
        latency: Latency { min: Duration::from_millis(1), max: Duration::from_millis(10) },
        apply_then_drop: 2.0,
        drop_before_apply: 2.0,
        error_after_apply: 2.0,
        slow_202: 1.5,
        garbage: 1.0,
        busy: 1.5,
        lookup_error: 5.0,
        processing_time: Duration::from_millis(400),
        ..Faults::default()
    }
}

async fn migrate(url: &str) {
    let store = holdfast::store::Store::open(&url.to_owned().into(), 2).unwrap();
    store.migrate().await.unwrap();
    store.close().await;
}

/// Tells how far it is, until it has done what it was told to.
async fn watch(settings: &Settings, tally: &Tally) {
    let begun = Instant::now();
    let mut last = Instant::now();
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        if last.elapsed() > Duration::from_secs(5) {
            last = Instant::now();
            println!("{:>5} s: {tally}", begun.elapsed().as_secs());
        }
        if settings.are_met(begun.elapsed(), tally) {
            return;
        }
    }
}

/// Where a key is counted once, or can be looked up, nothing is left to a person.
async fn only_tasks_are_a_persons(url: &str) -> Vec<Broken> {
    let mut db = PgConnection::connect(url).await.unwrap();
    let theirs = "SELECT redemption_id::text FROM redemptions
                  WHERE (state = 'NEEDS_REVIEW' OR resolved_by IS NOT NULL)
                    AND provider_id <> 'holdfast'
                    AND (provider_id <> $1 OR provider_task IS NOT NULL)";
    let theirs = sqlx::query_scalar(theirs).bind(Real::Task.provider_id());
    let theirs: Vec<String> = theirs.fetch_all(&mut db).await.unwrap();
    theirs.into_iter().map(|id| format!("redemption {id} was left to a person")).collect()
}

/// Every redemption that was in doubt is settled, or listed for a person, within twice the provider's
/// longest processing time.
async fn doubt_ends(url: &str, tally: &Tally, since: Instant) -> Vec<Broken> {
    let mut db = PgConnection::connect(url).await.unwrap();
    // Those that were begun before the faults stopped.
    let count = "SELECT count(*) FROM redemptions
                 WHERE state IN ('SUBMITTED', 'IN_DOUBT') AND created_at < $1::timestamptz";
    let now: String = sqlx::query_scalar("SELECT now()::text").fetch_one(&mut db).await.unwrap();
    loop {
        let open: i64 = sqlx::query_scalar(count).bind(&now).fetch_one(&mut db).await.unwrap();
        if open == 0 {
            tally.set_settled_after(since.elapsed());
            return Vec::new();
        }
        if since.elapsed() > MAX_PROCESSING * 2 {
            tally.set_settled_after(since.elapsed());
            let limit = MAX_PROCESSING * 2;
            return vec![format!("{open} redemptions are in doubt {limit:?} after the faults")];
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
