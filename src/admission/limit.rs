//! The limit on what is at work at once, and the rule by which it moves.
//!
//! The signal is CoDel's (RFC 8289; in front of servers: folly's `Codel`): not how long somebody waited, but how
//! long everybody did over an interval. A queue that empties now and then is a burst; one that does not is more
//! work than gets done. The delay is set against the time that a statement takes. A call that comes while one runs
//! must wait for its end in any case, and a slow database alone is no overload. The answer is the one of
//! congestion control. With a standing queue the limit falls by a factor, at once. Without one it rises by little
//! when it was reached. It never rises otherwise, because then nothing is known of what lies above. The factor
//! grows with the delay, as in Netflix's `concurrency-limits` (Gradient2), by its root, so that one odd
//! measurement does not halve the limit.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

/// How long a queue must stand before it is taken for one, and the least time between two rises.
pub(super) const INTERVAL: Duration = Duration::from_millis(100);
/// The least that the limit falls by, and the most.
const LEAST_FALL: f64 = 0.95;
const MOST_FALL: f64 = 0.5;
/// Which part of itself the limit rises by.
const RISE: f64 = 1.0 / 16.0;

/// Where a limit may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Never below.
    pub(super) floor: usize,
    /// To begin with, and again when nothing is known against it.
    pub(super) start: usize,
    /// Never above.
    pub(super) ceiling: usize,
}

/// What was measured over an interval, in front of one queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) now: Instant,
    /// The shortest delay of all, relative to what is no overload: above 1 the queue stands.
    pub(super) pressure: f64,
    /// Until what is at work now is done: before then nothing that was changed can show.
    pub(super) settles: Duration,
}

/// Those who are at work, and how many may be.
pub(super) struct Limit {
    now: AtomicUsize,
    at_work: AtomicUsize,
    /// The most at work since the rule was asked last.
    peak: AtomicUsize,
    /// Somebody found no permit since then.
    reached: AtomicBool,
    rule: Mutex<Rule>,
    gauge: metrics::Gauge,
}

impl Limit {
    pub(super) fn new(bounds: Bounds, gauge: metrics::Gauge) -> Self {
        gauge.set(bounds.start as f64);
        Self {
            now: AtomicUsize::new(bounds.start),
            at_work: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            reached: AtomicBool::new(false),
            rule: Mutex::new(Rule::new(bounds)),
            gauge,
        }
    }

    pub(super) fn now(&self) -> usize {
        self.now.load(Ordering::Relaxed)
    }

    pub(super) fn at_work(&self) -> usize {
        self.at_work.load(Ordering::Relaxed)
    }

    /// Is this from now on.
    #[cfg(test)]
    pub(super) fn set(&self, now: usize) {
        self.now.store(now, Ordering::Relaxed);
    }

    /// Goes to work whether or not there is room.
    pub(super) fn enter(&self) {
        let before = self.at_work.fetch_add(1, Ordering::Relaxed);
        self.peak.fetch_max(before + 1, Ordering::Relaxed);
    }

    /// Goes to work if less than `share` percent of the limit is, or if it may be beyond that.
    pub(super) fn enter_as(&self, share: usize, may_be_beyond: bool) -> bool {
        if !self.has_room(share) && !may_be_beyond {
            return false;
        }
        self.enter();
        true
    }

    /// Whether less than `share` percent of the limit is at work. Two who ask at once may both get the
    /// last permit: the limit is no promise.
    pub(super) fn has_room(&self, share: usize) -> bool {
        let room = self.at_work() * 100 < self.now() * share;
        if !room {
            self.reach();
        }
        room
    }

    pub(super) fn leave(&self) {
        self.at_work.fetch_sub(1, Ordering::Relaxed);
    }

    /// Notes that somebody found no permit.
    pub(super) fn reach(&self) {
        if !self.reached.load(Ordering::Relaxed) {
            self.reached.store(true, Ordering::Relaxed);
        }
    }

    /// Moves the limit by what was measured; the new one when it moved.
    pub(super) fn see(&self, seen: Seen) -> Option<usize> {
        let mut rule = self.rule.lock().unwrap_or_else(PoisonError::into_inner);
        let before = rule.limit();
        let peak = self.peak.load(Ordering::Relaxed);
        if rule.see(seen, peak, self.reached.load(Ordering::Relaxed)) {
            self.peak.store(self.at_work(), Ordering::Relaxed);
            self.reached.store(false, Ordering::Relaxed);
        }
        let limit = rule.limit();
        if limit == before {
            return None;
        }
        self.now.store(limit, Ordering::Relaxed);
        self.gauge.set(limit as f64);
        Some(limit)
    }
}

/// The rule. See [the module](self).
#[derive(Debug)]
pub(super) struct Rule {
    bounds: Bounds,
    limit: f64,
    falls_from: Option<Instant>,
    rises_from: Option<Instant>,
}

impl Rule {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, limit: bounds.start as f64, falls_from: None, rises_from: None }
    }

    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between its bounds"
    )]
    pub(super) fn limit(&self) -> usize {
        self.limit as usize
    }

    /// Takes a measurement. `peak` were at work at the most since the last one that counted, and `reached`
    /// tells whether somebody found no permit. False when it was too early for it to count.
    pub(super) fn see(&mut self, seen: Seen, peak: usize, reached: bool) -> bool {
        let Seen { now, pressure, settles } = seen;
        let due = |from: Option<Instant>| from.is_none_or(|from| from <= now);
        if pressure > 1.0 {
            let wait = Some(now + settles.max(INTERVAL));
            // While any queue is long the limit does not rise.
            self.rises_from = self.rises_from.max(wait);
            // A queue of few is not cured by a limit that lets in many.
            if !due(self.falls_from) || (peak as f64) * 2.0 < self.limit {
                return false;
            }
            let factor = pressure.sqrt().recip().clamp(MOST_FALL, LEAST_FALL);
            let from = self.limit.min(peak as f64);
            self.limit = (from * factor).max(self.bounds.floor as f64);
            self.falls_from = wait;
            return true;
        }
        if !due(self.rises_from) {
            return false;
        }
        let top = if reached { self.bounds.ceiling } else { self.bounds.start } as f64;
        if self.limit < top {
            self.limit = (self.limit + (self.limit * RISE).max(1.0)).min(top);
        }
        self.rises_from = Some(now + INTERVAL);
        true
    }
}
