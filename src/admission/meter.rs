//! The meter of queues in front of the database.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    Overload, Queue,
    limit::{INTERVAL, Seen},
};

/// A delay that is no overload, however short statements are: a pause of the scheduler is not longer.
const TARGET: Duration = Duration::from_millis(10);
/// A delay that is, however long they are. Where statements become long because there is too much to do, a
/// queue of several of them would only make callers wait.
const MOST: Duration = Duration::from_millis(50);
/// The fewest measurements of an interval: one or two may both have met a pause.
const LEAST_COUNT: u32 = 4;

/// Measures one queue: how much longer than necessary those at its head have waited.
#[derive(Debug)]
pub struct Meter {
    overload: Overload,
    queue: Queue,
    began: Option<Instant>,
    interval: Interval,
}

/// What was measured since some time.
#[derive(Debug, Default)]
struct Interval {
    since: Option<Instant>,
    count: u32,
    /// The shortest delay.
    least: Option<Duration>,
    /// The longest statement.
    longest: Duration,
}

impl Interval {
    fn note(&mut self, late: Duration) {
        self.count += 1;
        self.least = Some(self.least.map_or(late, |least| least.min(late)));
    }

    /// The result of the interval, when it is one.
    fn end(&mut self, now: Instant) -> Option<Seen> {
        let since = *self.since.get_or_insert(now);
        let least = self.least?;
        if self.count < LEAST_COUNT || now < since + INTERVAL {
            return None;
        }
        let longest = self.longest;
        *self = Self { since: Some(now), ..Self::default() };
        let allowed = longest.clamp(TARGET, MOST);
        let pressure = least.as_secs_f64() / allowed.as_secs_f64();
        Some(Seen { now, pressure, settles: least + longest })
    }
}

impl Meter {
    pub(super) fn new(overload: Overload, queue: Queue) -> Self {
        Self { overload, queue, began: None, interval: Interval::default() }
    }

    /// A statement begins for callers of whom the last came at `came`. The statement that ran then had to
    /// be waited for; every other one was missed for want of room in it.
    pub fn begins(&mut self, came: Instant) {
        self.begins_at(Instant::now(), came);
    }

    pub(super) fn begins_at(&mut self, now: Instant, came: Instant) {
        let before = self.began.replace(now);
        let late = before.map(|began| began.saturating_duration_since(came));
        self.interval.note(late.unwrap_or_default());
    }

    /// The statement has ended.
    pub fn ends(&mut self) {
        self.ends_at(Instant::now());
    }

    pub(super) fn ends_at(&mut self, now: Instant) {
        if let Some(began) = self.began {
            self.interval.longest = self.interval.longest.max(now - began);
        }
        self.report(now);
    }

    /// Somebody has waited for `waited`, and all of it counts.
    pub fn waited(&mut self, waited: Duration) {
        self.interval.note(waited);
        self.report(Instant::now());
    }

    fn report(&mut self, now: Instant) {
        if let Some(seen) = self.interval.end(now) {
            self.overload.see(self.queue, seen);
        }
    }
}
