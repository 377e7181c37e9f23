//! What is measured in front of the database.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    Overload, Queue,
    limit::{INTERVAL, Seen},
};

/// A delay that is no overload, however short statements are: a pause of the scheduler is not longer.
const TARGET: Duration = Duration::from_millis(10);
/// The fewest measurements of an interval: one or two may both have met a pause.
const LEAST_COUNT: u32 = 4;

/// Measures one queue: how long those whose turn it is have waited longer than they had to.
#[derive(Debug)]
pub struct Meter {
    overload: Overload,
    queue: Queue,
    began: Option<Instant>,
    interval: Interval,
}

/// What was measured since some time.
#[derive(Debug)]
struct Interval {
    since: Instant,
    count: u32,
    least: Duration,
    longest: Duration,
}

impl Interval {
    fn new(since: Instant) -> Self {
        Self { since, count: 0, least: Duration::MAX, longest: Duration::ZERO }
    }

    /// What the interval comes to, when it is one.
    fn end(&mut self, now: Instant) -> Option<Seen> {
        if self.count < LEAST_COUNT || now < self.since + INTERVAL {
            return None;
        }
        let Self { least, longest, .. } = std::mem::replace(self, Self::new(now));
        let allowed = longest.max(TARGET);
        let pressure = least.as_secs_f64() / allowed.as_secs_f64();
        Some(Seen { now, pressure, settles: least + longest })
    }
}

impl Meter {
    pub(super) fn new(overload: Overload, queue: Queue) -> Self {
        Self { overload, queue, began: None, interval: Interval::new(Instant::now()) }
    }

    /// A statement begins for callers of whom the last came at `came`. The statement that ran then had to
    /// be waited for; every other one was missed for want of room in it.
    pub fn begins(&mut self, came: Instant) {
        let now = Instant::now();
        if let Some(began) = self.began.replace(now) {
            self.interval.least = self.interval.least.min(began.saturating_duration_since(came));
        } else {
            self.interval.least = Duration::ZERO;
        }
        self.interval.count += 1;
    }

    /// The statement has ended.
    pub fn ends(&mut self) {
        let now = Instant::now();
        if let Some(began) = self.began {
            self.interval.longest = self.interval.longest.max(now - began);
        }
        self.report(now);
    }

    /// Somebody has waited for `waited`, all of which counts.
    pub fn waited(&mut self, waited: Duration) {
        self.interval.count += 1;
        self.interval.least = self.interval.least.min(waited);
        self.report(Instant::now());
    }

    fn report(&mut self, now: Instant) {
        if let Some(seen) = self.interval.end(now) {
            self.overload.see(self.queue, seen);
        }
    }
}
