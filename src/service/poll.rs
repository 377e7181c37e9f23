//! Polls: how often to read what is due, and how far back (the look-back window).

use std::time::Duration;

use tokio::time::Instant;

/// Polls take at most one part in so many of the time.
const SHARE: u32 = 10;
/// But nothing that is due waits longer than this for a poll.
const LONGEST: Duration = Duration::from_secs(10);

/// Polls of all that is due take at most one part in so many of the time. So few callers meet one that the slowest
/// hundredth of calls does not show it.
const SHARE_OF_ALL: u32 = 400;
/// But after this time there is one in any case.
const LONGEST_WITHOUT_ALL: Duration = Duration::from_secs(10 * 60);
/// How long ago something may have become due that the poll before did not see: its change was not committed, or
/// its row was locked. A statement takes at most 15 s (`store/mod.rs`).
const LATE: Duration = Duration::from_secs(30);

/// The pause after a poll that took `took`: `interval`, unless polls are slow. They read the dead entries of all
/// that became due since the table was last vacuumed. A long-running transaction keeps vacuum from removing them.
/// Polls without a pause would then be most of what the database does.
pub(super) fn pause_after(took: Duration, interval: Duration) -> Duration {
    interval.max((took * SHARE).min(LONGEST))
}

/// The look-back window of one loop's polls. Most polls read what became due since the one before. As often as it
/// costs little, one reads all that is due, and finds what the others missed.
#[derive(Debug, Default)]
pub(super) struct PollWindow {
    /// When the last poll of all that is due began, and how long it took.
    all: Option<(Instant, Duration)>,
    /// When the last poll began after which nothing was left over.
    complete: Option<Instant>,
}

/// A poll that is under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Poll {
    begun: Instant,
    /// It reads what became due no longer ago than this; none: all that is due.
    pub(super) within: Option<Duration>,
}

impl Poll {
    /// The pause after it, when its statement has just been answered.
    pub(super) fn pause(&self, interval: Duration) -> Duration {
        pause_after(self.begun.elapsed(), interval)
    }
}

impl PollWindow {
    /// A poll that begins now.
    pub(super) fn begin(&self) -> Poll {
        self.begin_at(Instant::now())
    }

    fn begin_at(&self, now: Instant) -> Poll {
        let all_is_little = self.all.is_none_or(|(at, took)| {
            now.duration_since(at) >= (took * SHARE_OF_ALL).min(LONGEST_WITHOUT_ALL)
        });
        let before = if all_is_little { None } else { self.complete };
        Poll { begun: now, within: before.map(|before| now.duration_since(before) + LATE) }
    }

    /// Ends a poll. `complete`: all that it read was handled; otherwise the next one reads it too.
    pub(super) fn end(&mut self, poll: &Poll, complete: bool) {
        self.end_at(poll, complete, Instant::now());
    }

    fn end_at(&mut self, poll: &Poll, complete: bool, now: Instant) {
        if poll.within.is_none() {
            self.all = Some((poll.begun, now.duration_since(poll.begun)));
        }
        if complete {
            self.complete = Some(poll.begun);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn slow_polls_are_rarer_up_to_a_bound() {
        assert_eq!(pause_after(ms(1), ms(200)), ms(200), "a quick one");
        assert_eq!(pause_after(ms(300), ms(200)), ms(3_000));
        assert_eq!(pause_after(ms(30_000), ms(200)), LONGEST);
        assert_eq!(pause_after(ms(30_000), ms(20_000)), ms(20_000), "as it was set");
    }

    /// Polls after `after`, for `took`, and tells how far back.
    fn poll(
        window: &mut PollWindow,
        now: &mut Instant,
        after: u64,
        took: u64,
        complete: bool,
    ) -> Option<Duration> {
        *now += ms(after);
        let poll = window.begin_at(*now);
        *now += ms(took);
        window.end_at(&poll, complete, *now);
        poll.within
    }

    #[test]
    fn a_poll_reads_what_became_due_since_the_one_before_and_sometimes_everything() {
        let (mut window, mut now) = (PollWindow::default(), Instant::now());
        assert_eq!(poll(&mut window, &mut now, 0, 1_000, true), None, "the first");
        assert_eq!(poll(&mut window, &mut now, 9_000, 1, true), Some(LATE + ms(10_000)));
        assert_eq!(poll(&mut window, &mut now, 499, 1, true), Some(LATE + ms(500)));
        // The first took a second: 400 times as long after it began.
        assert_eq!(poll(&mut window, &mut now, 389_498, 1, true), Some(LATE + ms(389_499)));
        assert_eq!(poll(&mut window, &mut now, 499, 60_000, true), None);
        // This one a minute: 400 would be too many.
        assert!(poll(&mut window, &mut now, 539_999, 0, true).is_some());
        assert_eq!(poll(&mut window, &mut now, 1, 1, true), None);
        // And this one next to nothing.
        assert_eq!(poll(&mut window, &mut now, 500, 1, true), None);
    }

    #[test]
    fn what_was_left_over_is_polled_again() {
        let (mut window, mut now) = (PollWindow::default(), Instant::now());
        // Nothing was complete yet.
        assert_eq!(poll(&mut window, &mut now, 0, 10_000, false), None);
        assert_eq!(poll(&mut window, &mut now, 500, 10_000, false), None);
        assert_eq!(poll(&mut window, &mut now, 500, 10_000, true), None);
        assert_eq!(poll(&mut window, &mut now, 500, 0, false), Some(LATE + ms(10_500)));
        assert_eq!(poll(&mut window, &mut now, 500, 0, true), Some(LATE + ms(11_000)));
        assert_eq!(poll(&mut window, &mut now, 500, 0, true), Some(LATE + ms(500)));
    }
}
