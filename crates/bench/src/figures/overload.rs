//! Ten times the load that saturates the server: what it still gets done, how it refuses the rest, and
//! whether holders keep their leases.
//!
//! The peak is what callers get who call again as soon as they are answered. Then callers come at ten times
//! that rate, each with a deadline, whether or not those before them were answered. A cycle is good when
//! its acquisition was answered before its deadline and its lease was released.

mod lean;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use holdfast::rpc::pb::{
    AcquireAccountRequest, AcquireAccountResponse, LeaseRef, ReleaseAccountResponse,
    RenewLeaseRequest,
};
use prost_types::Duration as PbDuration;
use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use self::lean::{Lean, To};
use crate::{
    args::Args,
    goals::{Row, part},
    ground::Ground,
    load::{Caller, Times, closed_loop},
    open_loop::{Arrivals, open_loop},
    peers::holdfast::{CONNECTIONS, Client, IN_FLIGHT, Server, acquire, acquired, release},
    postgres,
    report::progress,
    stats,
};

/// How many times the peak comes.
const TIMES: f64 = 10.0;
/// Accounts: more than could be leased before leases that nobody releases run out.
const ACCOUNTS: usize = 50_000;
/// From the time at which a caller was to come.
const DEADLINE: Duration = Duration::from_secs(1);
/// What a caller gets who may never release: those whose deadline passed do not.
const LEASE: PbDuration = PbDuration { seconds: 5, nanos: 0 };
/// Callers under way, at the most: more than the server takes.
const MOST_UNDER_WAY: u32 = 20_000;
/// Holders who renew all the while, how often, and how long their leases last.
const HOLDERS: usize = 64;
const RENEWAL: Duration = Duration::from_secs(1);
const HELD: PbDuration = PbDuration { seconds: 10, nanos: 0 };
/// How long the peak is measured, and how often.
const PEAKS: usize = 3;

/// What a caller says whose own clock is quicker than the server's.
const OUT_OF_TIME: &str = "the deadline passed";

/// Callers who acquire and release again and again.
struct Cycles(Lean);

impl Caller for Cycles {
    async fn once(&mut self) -> anyhow::Result<()> {
        let acquired: AcquireAccountResponse = self.0.call(To::Acquire, &acquire(), None).await?;
        let lease = acquired.lease.and_then(|lease| lease.r#ref);
        released(&self.0, lease).await.map_err(anyhow::Error::msg)
    }
}

/// What became of those who came.
struct Tally {
    good: u64,
    /// Refused as overload: from the time at which they were to come, and from when they called.
    refused: Times,
    refused_since_call: Times,
    /// Everything else.
    otherwise: BTreeMap<String, u64>,
}

type SharedTally = Arc<Mutex<Tally>>;

pub(super) async fn measure(args: &Args, ground: &Ground, row: &mut Row) -> anyhow::Result<()> {
    progress("ten times the load that saturates");
    let url = ground.new_database("overload").await?;
    postgres::fill(&url, ACCOUNTS).await?;
    let server = Server::start(ground, &url, &[]).await?;
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(Lean::connect(&server.url).await?);
    }
    let holders = Holders::start(&server).await?;
    let mut peaks = Vec::new();
    let callers = || clients.iter().cycle().take(IN_FLIGHT).cloned().map(Cycles).collect();
    closed_loop(callers(), args.trial()).await?;
    for _ in 0..PEAKS {
        ground.level().await?;
        peaks.push(closed_loop(callers(), args.run_duration()).await?);
    }
    let peak = stats::median(&peaks);
    progress(&format!("  peak: {peak:.0} cycles/s; now {:.0}/s come", peak * TIMES));

    ground.level().await?;
    let tally = Arc::new(Mutex::new(Tally {
        good: 0,
        refused: Times::new()?,
        refused_since_call: Times::new()?,
        otherwise: BTreeMap::new(),
    }));
    let lasting = args.overload();
    let end = Instant::now() + lasting;
    let mut next = clients.iter().cycle();
    let arrivals = open_loop(peak * TIMES, lasting, MOST_UNDER_WAY, |intended| {
        let client = next.next().unwrap_or(&clients[0]).clone();
        come(client, intended, end, Arc::clone(&tally))
    })
    .await;
    let failed_renewals = holders.end().await?;
    note(row, &tally.lock().unwrap_or_else(PoisonError::into_inner), arrivals, &peaks, lasting);
    row.set(part::RENEWALS, failed_renewals.values().sum::<u64>() as f64, None);
    for (why, count) in failed_renewals {
        row.notes.push(format!("{count} renewals failed: {why}"));
    }
    drop((clients, server));
    ground.drop_database("overload").await
}

/// One caller: acquires before the deadline or not at all, and releases.
async fn come(client: Lean, intended: Instant, end: Instant, tally: SharedTally) {
    let called = Instant::now();
    let left = DEADLINE.saturating_sub(called - intended);
    let outcome = if left.is_zero() {
        Err("the deadline had passed before the call".to_owned())
    } else {
        let request = AcquireAccountRequest { lease_duration: Some(LEASE), ..acquire() };
        let call = client.call::<AcquireAccountResponse>(To::Acquire, &request, Some(left));
        match timeout(left, call).await.unwrap_or_else(|_| Err(Status::cancelled(OUT_OF_TIME))) {
            Ok(answer) => {
                let in_time = intended.elapsed() <= DEADLINE;
                let lease = answer.lease.and_then(|lease| lease.r#ref);
                released(&client, lease).await.map(|()| in_time)
            }
            Err(status) if reason(&status) == "OVERLOADED" => {
                let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
                tally.refused.note(intended.elapsed());
                tally.refused_since_call.note(called.elapsed());
                return;
            }
            Err(status) => Err(format!("acquire: {}", reason(&status))),
        }
    };
    let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
    let otherwise = match outcome {
        Ok(true) if Instant::now() <= end => {
            tally.good += 1;
            return;
        }
        Ok(true) => "released after the end".to_owned(),
        Ok(false) => "acquired after the deadline".to_owned(),
        Err(why) => why,
    };
    *tally.otherwise.entry(otherwise).or_default() += 1;
}

async fn released(client: &Lean, lease: Option<LeaseRef>) -> Result<(), String> {
    let lease = lease.ok_or("an answer without a lease")?;
    let released = client.call::<ReleaseAccountResponse>(To::Release, &release(lease), None).await;
    released.map(drop).map_err(|status| format!("release: {}", reason(&status)))
}

/// The reason of a refusal; else its code and message.
fn reason(status: &Status) -> String {
    let code = status.code();
    let refusals = [Code::ResourceExhausted, Code::Unavailable, Code::Aborted];
    let info = refusals.contains(&code).then(|| status.get_details_error_info()).flatten();
    match info {
        Some(info) => info.reason,
        None => format!("{code:?}, {}", status.message()),
    }
}

#[allow(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn note(row: &mut Row, tally: &Tally, arrivals: Arrivals, peaks: &[f64], lasting: Duration) {
    let seconds = lasting.as_secs_f64();
    let goodput = tally.good as f64 / seconds;
    row.set(part::GOODPUT, goodput / stats::median(peaks), None);
    if tally.refused.count() == 0 {
        row.fail(part::REFUSALS, "nothing was refused as overload");
    } else {
        row.set(part::REFUSALS, tally.refused.ms(99.0), None);
        row.measured.push(stats::measured("refusals, p50", "ms", &[tally.refused.ms(50.0)]));
        let since_call = tally.refused_since_call.ms(99.0);
        row.measured.push(stats::measured("refusals, p99 since the call", "ms", &[since_call]));
    }
    let rates = [
        ("came", arrivals.sent as f64),
        ("refused", tally.refused.count() as f64),
        ("neither good nor refused", tally.otherwise.values().sum::<u64>() as f64),
    ];
    row.measured.insert(0, stats::measured("peak", "cycles/s", peaks));
    row.measured.insert(1, stats::measured("good at ten times that", "cycles/s", &[goodput]));
    for (what, count) in rates {
        row.measured.push(stats::measured(what, "callers/s", &[count / seconds]));
    }
    if arrivals.sent < arrivals.intended {
        row.notes.push(format!(
            "of {} who were to come, {} came: {MOST_UNDER_WAY} were under way",
            arrivals.intended, arrivals.sent
        ));
    }
    for (why, count) in &tally.otherwise {
        row.notes.push(format!("{count} callers: {why}"));
    }
}

/// Callers who have leases, and renew them while others come.
struct Holders {
    running: JoinSet<BTreeMap<String, u64>>,
    stop: CancellationToken,
}

impl Holders {
    async fn start(server: &Server) -> anyhow::Result<Self> {
        let clients = server.clients(CONNECTIONS).await?;
        let stop = CancellationToken::new();
        let mut running = JoinSet::new();
        for client in clients.iter().cycle().take(HOLDERS) {
            let mut client = client.clone();
            let lease = acquired(&mut client).await?;
            running.spawn(hold(client, lease, stop.clone()));
        }
        Ok(Self { running, stop })
    }

    /// How many renewals failed, by the reason.
    async fn end(mut self) -> anyhow::Result<BTreeMap<String, u64>> {
        self.stop.cancel();
        let mut failed = BTreeMap::new();
        while let Some(one) = self.running.join_next().await {
            for (why, count) in one.context("a holder panicked")? {
                *failed.entry(why).or_default() += count;
            }
        }
        Ok(failed)
    }
}

async fn hold(
    mut client: Client,
    lease: LeaseRef,
    stop: CancellationToken,
) -> BTreeMap<String, u64> {
    let mut failed = BTreeMap::new();
    let mut renewals = tokio::time::interval(RENEWAL);
    loop {
        tokio::select! {
            () = stop.cancelled() => return failed,
            _ = renewals.tick() => {}
        }
        let renewal = RenewLeaseRequest { lease: Some(lease.clone()), lease_duration: Some(HELD) };
        let mut request = Request::new(renewal);
        request.set_timeout(Duration::from_secs(5));
        if let Err(status) = client.renew_lease(request).await {
            *failed.entry(reason(&status)).or_default() += 1;
        }
    }
}
