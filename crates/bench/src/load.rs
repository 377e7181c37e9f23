//! Callers that call again as soon as they are answered: how much there is in it at the most. And how long
//! calls took.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use hdrhistogram::Histogram;
use tokio::task::JoinSet;

/// the longest time that is distinguished from longer ones.
const LONGEST: Duration = Duration::from_secs(120);

/// Somebody who wants the same again and again.
pub(crate) trait Caller: Send + 'static {
    /// Once: to the answer.
    fn once(&mut self) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// How long calls took, in microseconds.
pub(crate) struct Times(Histogram<u64>);

impl Times {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let most = u64::try_from(LONGEST.as_micros())?;
        Ok(Self(Histogram::new_with_bounds(1, most, 3)?))
    }

    pub(crate) fn note(&mut self, took: Duration) {
        self.0.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1));
    }

    /// Takes those of another in too.
    pub(crate) fn add(&mut self, other: &Self) -> anyhow::Result<()> {
        Ok(self.0.add(&other.0)?)
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// A percentile, in milliseconds.
    pub(crate) fn ms(&self, percentile: f64) -> f64 {
        Duration::from_micros(self.0.value_at_percentile(percentile)).as_secs_f64() * 1_000.0
    }
}

/// Lets the callers call for `lasting`, and answers with how much they got done by the second. What is
/// answered later does not count. One that is not answered well ends it all: what fails is not to be
/// measured.
pub(crate) async fn closed_loop<C: Caller>(
    callers: Vec<C>,
    lasting: Duration,
) -> anyhow::Result<f64> {
    let end = Instant::now() + lasting;
    let mut running = JoinSet::new();
    for mut caller in callers {
        running.spawn(async move {
            let mut done = 0_u32;
            while Instant::now() < end {
                caller.once().await?;
                done += u32::from(Instant::now() <= end);
            }
            anyhow::Ok(done)
        });
    }
    let mut done = 0.0;
    while let Some(caller) = running.join_next().await {
        done += f64::from(caller.context("a caller panicked")??);
    }
    Ok(done / lasting.as_secs_f64())
}
