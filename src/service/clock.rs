//! Deadlines that other servers count on, by a clock that goes on while the machine is suspended.
//!
//! On Linux `Instant` stops then. A server that was suspended for an hour would send as if no time had
//! passed, while another has taken its redemption over.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::sleep;

/// Time since a fixed moment, such as the start of the machine.
type Clock = fn() -> Duration;

/// Linux has a clock that counts suspension. Elsewhere the monotonic one is used: on macOS it counts
/// suspension too, on the BSDs it may stop.
#[cfg(any(target_os = "linux", target_os = "android"))]
const CLOCK: ClockId = ClockId::Boottime;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const CLOCK: ClockId = ClockId::Monotonic;

/// A moment after which this server does not begin something any more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    at: Duration,
    clock: Clock,
}

impl Deadline {
    /// This time after now.
    pub(super) fn after(time: Duration) -> Self {
        Self::by(uptime, time)
    }

    fn by(clock: Clock, time: Duration) -> Self {
        Self { at: clock() + time, clock }
    }

    /// The one that comes first.
    pub(super) fn min(self, other: Self) -> Self {
        if other.at < self.at { other } else { self }
    }

    /// How long until then.
    pub(super) fn left(&self) -> Duration {
        self.at.saturating_sub((self.clock)())
    }

    /// Whether it has passed.
    pub(super) fn has_passed(&self) -> bool {
        (self.clock)() >= self.at
    }

    /// Waits for `pause`, and answers whether something may still be begun then. Does not wait when the
    /// deadline would pass meanwhile.
    pub(super) async fn pause(&self, pause: Duration) -> bool {
        if (self.clock)() + pause >= self.at {
            return false;
        }
        sleep(pause).await;
        // The process may have been stopped, or the machine suspended, for longer than the pause.
        !self.has_passed()
    }
}

fn uptime() -> Duration {
    let now = clock_gettime(CLOCK);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_deadline_passes_when_its_clock_says_so() {
        static NOW: AtomicU64 = AtomicU64::new(100);
        let deadline = Deadline::by(|| Duration::from_secs(NOW.load(Ordering::SeqCst)), SECOND * 2);
        assert!(!deadline.has_passed());
        NOW.store(101, Ordering::SeqCst);
        assert!(!deadline.has_passed());
        NOW.store(102, Ordering::SeqCst);
        assert!(deadline.has_passed());
    }

    #[tokio::test]
    async fn a_pause_that_lasted_longer_than_it_should_leaves_no_time() {
        static NOW: AtomicU64 = AtomicU64::new(0);
        let clock = || Duration::from_secs(NOW.load(Ordering::SeqCst));
        let deadline = Deadline::by(clock, SECOND * 60);
        let pause = Duration::from_millis(1);
        assert!(deadline.pause(pause).await, "nothing happened meanwhile");
        // Polled in this order: the hour passes during the pause.
        let (in_time, ()) = tokio::join!(deadline.pause(pause), async {
            NOW.store(3600, Ordering::SeqCst);
        });
        assert!(!in_time, "the machine was suspended for an hour");
        assert!(!deadline.pause(Duration::ZERO).await);
    }

    #[tokio::test]
    async fn a_pause_past_the_deadline_is_not_begun() {
        let before = tokio::time::Instant::now();
        let deadline = Deadline::by(|| Duration::ZERO, SECOND * 10);
        assert!(!deadline.pause(SECOND * 10).await);
        assert!(before.elapsed() < SECOND * 10);
    }

    #[test]
    fn the_clock_goes_on() {
        let before = uptime();
        let deadline = Deadline::after(Duration::from_millis(20));
        assert!(!deadline.has_passed());
        std::thread::sleep(Duration::from_millis(25));
        assert!(deadline.has_passed());
        assert!(uptime() > before);
    }
}
