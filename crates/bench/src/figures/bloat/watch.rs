//! Samples of what Postgres and the server use, taken while others work.

use std::time::Duration;

use serde::Serialize;
use sqlx::{Connection as _, PgConnection};
use tokio::time::{Instant, MissedTickBehavior};

use super::callers::Tally;
use crate::{counters::Counters, peers::holdfast::Server, report::progress};

/// One sample.
#[derive(Serialize)]
pub(crate) struct Sample {
    /// Seconds from the beginning.
    pub(crate) at: f64,
    pub(crate) server_mb: f64,
    pub(crate) counters: Counters,
}

/// How long acquisitions took in a minute or so, from the time at which each was to come.
#[derive(Serialize)]
pub(crate) struct Window {
    /// Seconds from the beginning to its end.
    pub(crate) at: f64,
    pub(crate) acquisitions: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) most_ms: f64,
}

/// Takes samples until the run is over.
pub(super) async fn watch(
    url: &str,
    server: &Server,
    tally: &Tally,
    begun: Instant,
    lasting: Duration,
    (window, sample): (Duration, Duration),
) -> anyhow::Result<(Vec<Sample>, Vec<Window>)> {
    let mut db = PgConnection::connect(url).await?;
    let (mut samples, mut windows) = (Vec::new(), Vec::new());
    let mut ticks = tokio::time::interval_at(begun, sample);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut next_window = begun + window;
    while begun.elapsed() < lasting {
        ticks.tick().await;
        let at = begun.elapsed().as_secs_f64();
        let server_mb = server.process.memory_mb()?;
        samples.push(Sample { at, server_mb, counters: Counters::read(&mut db).await? });
        if Instant::now() >= next_window {
            next_window += window;
            let window = Window::of(at, tally)?;
            tell(&window, samples.last());
            windows.push(window);
        }
    }
    db.close().await?;
    Ok((samples, windows))
}

impl Window {
    fn of(at: f64, tally: &Tally) -> anyhow::Result<Self> {
        let times = tally.take_times()?;
        Ok(Self {
            at,
            acquisitions: times.count(),
            p50_ms: times.ms(50.0),
            p99_ms: times.ms(99.0),
            most_ms: times.ms(100.0),
        })
    }
}

fn tell(window: &Window, sample: Option<&Sample>) {
    let accounts = sample.map(|sample| sample.counters.table("accounts")).unwrap_or_default();
    let Window { at, acquisitions, p50_ms, p99_ms, most_ms } = window;
    progress(&format!(
        "  {at:.0} s: {acquisitions} acquired, p50 {p50_ms:.1} p99 {p99_ms:.1} max {most_ms:.0} ms; accounts: \
         {:.1} MB, {:.0} dead rows",
        accounts.bytes / 1e6,
        accounts.dead_rows
    ));
}
