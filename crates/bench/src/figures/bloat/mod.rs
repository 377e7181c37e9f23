//! An hour at half load: whether tables, indexes, dead rows and times stay as they are, also after a
//! long-running transaction. While that is open, Postgres removes no row version that died after it began.
//!
//! Cycles come at a rate in a pool whose accounts have no plan; cards come at a lesser one to a pool whose
//! accounts have one, with days. Postgres is as Holdfast starts it: autovacuum and checkpoints are its own.

mod callers;
mod phases;
mod watch;

use std::{sync::Arc, time::Duration};

use serde::Serialize;
use sqlx::{Connection as _, PgConnection};
use tokio::time::{Instant, sleep_until};

pub(crate) use self::watch::{Sample, Window};
use self::{
    callers::{Tally, cards, come},
    phases::{Course, Phase},
    watch::watch,
};
use super::WARM_UP;
use crate::{
    args::Args,
    ground::{Ground, Use},
    load::closed_loop,
    machine::Machine,
    open_loop::{Arrivals, open_loop},
    peers::{
        holdfast::{CONNECTIONS, Cycles, IN_FLIGHT, Server},
        provider::Provider,
    },
    postgres::{self, POOL},
    report::{self, progress},
    stats,
};

/// Accounts of each pool.
const ACCOUNTS: usize = 20_000;
/// The pool whose accounts have a plan.
const PLANNED: &str = "planned";
/// How often the peak is measured.
const PEAKS: usize = 3;
/// Shares of the peak: of cycles, and of redemptions, each as dear as two and a half
/// cycles. Together that is half.
const CYCLES: f64 = 0.4;
const REDEMPTIONS: f64 = 0.04;
/// Callers under way at the most.
const MOST_UNDER_WAY: u32 = 20_000;

/// What came of it: `bloat.json`.
#[derive(Serialize)]
pub(crate) struct Bloat {
    pub(crate) machine: Machine,
    pub(crate) minutes: f64,
    pub(crate) peak_cycles_per_second: f64,
    pub(crate) cycles_per_second: f64,
    pub(crate) redemptions_per_second: f64,
    /// When the long-running transaction was open, in seconds from the beginning.
    pub(crate) long_transaction: (f64, f64),
    /// Whether all that is to be flat was.
    pub(crate) flat: bool,
    pub(crate) courses: Vec<Course>,
    /// What went otherwise.
    pub(crate) notes: Vec<String>,
    pub(crate) windows: Vec<Window>,
    pub(crate) samples: Vec<Sample>,
}

pub(crate) async fn measure(args: &Args) -> anyhow::Result<()> {
    let lasting = args.bloat();
    progress(&format!("{} minutes at half load", lasting.as_secs() / 60));
    let ground = Ground::prepare(args, Use::AsServed).await?;
    let machine = Machine::read(&ground).await?;
    progress(&machine.to_string());
    let url = ground.new_database("bloat").await?;
    postgres::fill_with_past(&url, ACCOUNTS).await?;
    fill_planned(&url).await?;
    let provider = Provider::start(&ground, "0ms").await?;
    let settings = [format!("--provider-url={}", provider.url)];
    let server = Server::start(&ground, &url, &settings).await?;
    let peak = peak(args, &server).await?;
    let rates = [peak * CYCLES, peak * REDEMPTIONS];
    progress(&format!(
        "  peak: {peak:.0} cycles/s; now {:.0} cycles/s and {:.0} redemptions/s come",
        rates[0], rates[1]
    ));
    let bloat = Box::pin(run(args, &url, &server, rates)).await?;
    let bloat = Bloat { machine, peak_cycles_per_second: peak, ..bloat };
    report::bloat(args, &bloat)?;
    drop((server, provider));
    ground.stop().await
}

async fn peak(args: &Args, server: &Server) -> anyhow::Result<f64> {
    let clients = server.clients(CONNECTIONS).await?;
    let callers = || clients.iter().cycle().take(IN_FLIGHT).cloned().map(Cycles).collect();
    closed_loop(callers(), WARM_UP).await?;
    let mut peaks = Vec::new();
    for _ in 0..PEAKS {
        peaks.push(closed_loop(callers(), args.run_duration()).await?);
    }
    Ok(stats::median(&peaks))
}

async fn run(args: &Args, url: &str, server: &Server, rates: [f64; 2]) -> anyhow::Result<Bloat> {
    let lasting = args.bloat();
    let (window, sample) = args.bloat_intervals();
    let tally = Arc::new(Tally::new()?);
    let clients = server.clients(CONNECTIONS).await?;
    let mut next = clients.iter().cycle();
    let begun = Instant::now();
    let cycling = async {
        let arrivals = open_loop(rates[0], lasting, MOST_UNDER_WAY, |intended| {
            let client = next.next().unwrap_or(&clients[0]).clone();
            come(client, intended, Arc::clone(&tally))
        });
        anyhow::Ok(arrivals.await)
    };
    let client = server.clients(1).await?.remove(0);
    let redeeming = cards(client, rates[1], begun + lasting, Arc::clone(&tally));
    let watching = watch(url, server, &tally, begun, lasting, (window, sample));
    let held = Phase::Held.within(lasting);
    let holding = hold_transaction(url, begun, held);
    let (arrivals, (), watched, long_transaction) =
        tokio::try_join!(cycling, redeeming, watching, holding)?;
    let (samples, windows) = watched;
    let courses = phases::courses(&samples, &windows, lasting);
    Ok(Bloat {
        machine: Machine::default(),
        minutes: lasting.as_secs_f64() / 60.0,
        peak_cycles_per_second: 0.0,
        cycles_per_second: rates[0],
        redemptions_per_second: rates[1],
        long_transaction,
        flat: courses.iter().all(|course| course.flat != Some(false)),
        courses,
        notes: notes(&tally, arrivals),
        windows,
        samples,
    })
}

/// Accounts of a plan with days that follow each other in minutes: deferred, promoted, filled, completed.
async fn fill_planned(url: &str) -> anyhow::Result<()> {
    let sql = format!(
        "INSERT INTO pools (pool_id, currency_code, default_lease, min_lease, max_lease, amount_mismatch)
         SELECT '{PLANNED}', currency_code, default_lease, min_lease, max_lease, amount_mismatch
         FROM pools WHERE pool_id = '{POOL}';
         INSERT INTO plans (pool_id, plan_id, target_minor, day_amounts_minor, day_interval)
         VALUES ('{PLANNED}', 'plan', 100000, '{{20000,20000,60000}}', '1 minute');
         INSERT INTO accounts (pool_id, account_id, plan_id, country_code)
         SELECT '{PLANNED}', account_id, 'plan', country_code FROM accounts WHERE pool_id = '{POOL}'"
    );
    postgres::run(url, &sql).await?;
    postgres::run(url, "VACUUM (ANALYZE)").await
}

/// Writes in a transaction, and leaves it open for a while. Answers with the time that it was open.
async fn hold_transaction(
    url: &str,
    begun: Instant,
    (from, to): (Duration, Duration),
) -> anyhow::Result<(f64, f64)> {
    let mut db = PgConnection::connect(url).await?;
    for sql in [
        "SET idle_in_transaction_session_timeout = 0",
        "CREATE TABLE long_transaction (words text)",
    ] {
        sqlx::query(sql).execute(&mut db).await?;
    }
    sleep_until(begun + from).await;
    for sql in ["BEGIN", "INSERT INTO long_transaction VALUES ('back in ten minutes')"] {
        sqlx::raw_sql(sql).execute(&mut db).await?;
    }
    let opened = begun.elapsed().as_secs_f64();
    progress("  a transaction opens, and stays open");
    sleep_until(begun + to).await;
    // Fails when it was ended meanwhile, which would not be what is measured.
    sqlx::raw_sql("COMMIT").execute(&mut db).await?;
    progress("  the long-running transaction has ended");
    Ok((opened, begun.elapsed().as_secs_f64()))
}

fn notes(tally: &Tally, arrivals: Arrivals) -> Vec<String> {
    let mut notes = vec![format!(
        "{} callers were to come, {} came; {} cards were credited",
        arrivals.intended,
        arrivals.sent,
        tally.credited()
    )];
    notes.extend(tally.failed().into_iter().map(|(why, count)| format!("{count} failed: {why}")));
    notes
}
