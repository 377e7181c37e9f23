//! The pressure: how many more calls come than there is room for. It decides when refused callers are to try again.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::MAX_PRESSURE;

/// Over how long callers are counted.
const COUNTED: Duration = Duration::from_millis(250);
/// The clock is read once in so many refusals.
const LOOKS_EVERY: u64 = 64;

/// Those who came of late, by what became of them.
#[derive(Debug, Default)]
pub(super) struct Pressure {
    admitted: AtomicU64,
    refused: AtomicU64,
    level: AtomicUsize,
    counted_from: Mutex<Option<Instant>>,
}

impl Pressure {
    pub(super) fn note_admitted(&self) {
        self.admitted.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one who is refused, and answers how steep the pressure is.
    pub(super) fn note_refused(&self) -> usize {
        if self.refused.fetch_add(1, Ordering::Relaxed).is_multiple_of(LOOKS_EVERY) {
            self.measure(Instant::now());
        }
        self.level.load(Ordering::Relaxed)
    }

    fn measure(&self, now: Instant) {
        // One that measures is enough.
        let Ok(mut from) = self.counted_from.try_lock() else { return };
        if from.is_some_and(|from| now < from + COUNTED) {
            return;
        }
        *from = Some(now);
        let admitted = self.admitted.swap(0, Ordering::Relaxed).max(1);
        let refused = self.refused.swap(0, Ordering::Relaxed);
        self.level.store(level(admitted, refused), Ordering::Relaxed);
    }
}

/// How often the callers would have to be halved until there were as few as are admitted.
fn level(admitted: u64, refused: u64) -> usize {
    let times = (admitted + refused) / admitted;
    usize::try_from(times.max(1).ilog2()).unwrap_or(MAX_PRESSURE).min(MAX_PRESSURE)
}
