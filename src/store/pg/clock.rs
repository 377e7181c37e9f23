//! The database's clock, beside this machine's, and beside what it was before.
//!
//! Every lease and every time at which an account may be used again is by the database's clock. Where it went back,
//! because it was set, or because another machine is the primary now, what was noted before lies in the future: accounts
//! are free, and nobody gets them, until the clock is where it was.

use std::{
    sync::{Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

/// Clocks of primaries that follow one another differ by as much.
const TOLERANCE_MS: i64 = 1_000;
/// Certificates and JWTs are judged by this machine's clock: a difference that is worth a line in the log.
const SKEW_MS: i64 = 2_000;

/// What is known of it.
#[derive(Debug, Default)]
pub(super) struct Clock(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// The latest time that it told, in milliseconds since 1970.
    latest_ms: i64,
    /// By how much it is behind that now.
    behind_ms: i64,
    is_skewed: bool,
}

impl Clock {
    /// It told this time, between two of this machine's.
    pub(super) fn told(&self, told_ms: i64, before: SystemTime, after: SystemTime) {
        let (before, after) = (milliseconds(before), milliseconds(after));
        let skew_ms = if told_ms < before { told_ms - before } else { (told_ms - after).max(0) };
        metrics::gauge!("holdfast_database_clock_skew_seconds").set(skew_ms as f64 / 1_000.0);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_skewed = skew_ms.abs() > SKEW_MS;
        if is_skewed && !known.is_skewed {
            tracing::warn!(
                skew_ms,
                "the database's clock and this machine's differ: let both follow one clock (NTP)"
            );
        }
        known.is_skewed = is_skewed;
        known.note(told_ms);
    }

    /// The database wrote this time before.
    pub(super) fn was(&self, written_ms: i64) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.latest_ms = known.latest_ms.max(written_ms);
    }

    /// By how much it is behind what it was; nothing where it is not.
    #[cfg(test)]
    fn behind(&self) -> std::time::Duration {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::time::Duration::from_millis(u64::try_from(known.behind_ms).unwrap_or(0))
    }
}

impl Known {
    fn note(&mut self, told_ms: i64) {
        let behind_ms = self.latest_ms - told_ms;
        let behind_ms = if behind_ms > TOLERANCE_MS { behind_ms } else { 0 };
        metrics::gauge!("holdfast_database_clock_behind_seconds").set(behind_ms as f64 / 1_000.0);
        if behind_ms > 0 && self.behind_ms == 0 {
            tracing::error!(
                behind_ms,
                "the database's clock went back: accounts that were to be free by now are not, until it is where it was"
            );
        } else if behind_ms == 0 && self.behind_ms > 0 {
            tracing::info!("the database's clock is where it was");
        }
        self.behind_ms = behind_ms;
        self.latest_ms = self.latest_ms.max(told_ms);
    }
}

fn milliseconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_clock_that_went_back_is_behind_until_it_is_where_it_was() {
        let clock = Clock::default();
        let at = |ms: i64| clock.0.lock().unwrap().note(ms);
        at(100_000);
        at(99_500);
        assert_eq!(clock.behind(), Duration::ZERO, "as primaries differ");
        at(40_000);
        assert_eq!(clock.behind(), Duration::from_secs(60));
        at(70_000);
        assert_eq!(clock.behind(), Duration::from_secs(30));
        at(99_999);
        assert_eq!(clock.behind(), Duration::ZERO);
        clock.was(200_000);
        at(100_000);
        assert_eq!(
            clock.behind(),
            Duration::from_secs(100),
            "by what was written before the start"
        );
    }
}
