//! How often to look for what is due, and how far back.

use std::time::Duration;

use tokio::time::Instant;

/// Looks take at most one part in so many of the time.
const SHARE: u32 = 10;
/// But nothing that is due waits longer than this for a look.
const LONGEST: Duration = Duration::from_secs(10);

/// Looks at all that is due take at most one part in so many of the time: fewer callers meet one than would be
/// seen among the slowest hundredth.
const SHARE_OF_ALL: u32 = 400;
/// But after so long there is one, whatever it takes.
const LONGEST_WITHOUT_ALL: Duration = Duration::from_secs(10 * 60);
/// How long ago something may have come due that the look before did not see, because what made it due was
/// not committed, or because its row was locked. A statement takes at most 15 s (`store/mod.rs`).
const LATE: Duration = Duration::from_secs(30);

/// The pause after a look that took so long: `interval`, unless looks are slow. They read past all that came due
/// and was seen to since the table was last vacuumed, and while anybody's old transaction is open no vacuum
/// clears that away: looks that came all the time would then be most of what the database does.
pub(super) fn pause_after(took: Duration, interval: Duration) -> Duration {
    interval.max((took * SHARE).min(LONGEST))
}

/// The looks of one loop. Most are at what came due since the look before; now and then, as often as that
/// costs little, one is at all that is due: what was missed for whatever reason is found by those.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// When the last look at all began, and how long it took.
    all: Option<(Instant, Duration)>,
    /// When the last look began after which nothing was left over.
    complete: Option<Instant>,
}

/// A look that is under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    begun: Instant,
    /// It is at what came due no longer ago than this; none: at all.
    pub(super) within: Option<Duration>,
}

impl Look {
    /// The pause after it, when its statement has just been answered.
    pub(super) fn pause(&self, interval: Duration) -> Duration {
        pause_after(self.begun.elapsed(), interval)
    }
}

impl Looks {
    /// A look that begins now.
    pub(super) fn begin(&self) -> Look {
        self.begin_at(Instant::now())
    }

    fn begin_at(&self, now: Instant) -> Look {
        let all_is_little = self.all.is_none_or(|(at, took)| {
            now.duration_since(at) >= (took * SHARE_OF_ALL).min(LONGEST_WITHOUT_ALL)
        });
        let before = if all_is_little { None } else { self.complete };
        Look { begun: now, within: before.map(|before| now.duration_since(before) + LATE) }
    }

    /// Ends a look. `complete`: all that it was at was seen to; else the next is at that too.
    pub(super) fn end(&mut self, look: &Look, complete: bool) {
        self.end_at(look, complete, Instant::now());
    }

    fn end_at(&mut self, look: &Look, complete: bool, now: Instant) {
        if look.within.is_none() {
            self.all = Some((look.begun, now.duration_since(look.begun)));
        }
        if complete {
            self.complete = Some(look.begun);
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
    fn slow_looks_are_rarer_and_none_is_left_out() {
        assert_eq!(pause_after(ms(1), ms(200)), ms(200), "a quick one");
        assert_eq!(pause_after(ms(300), ms(200)), ms(3_000));
        assert_eq!(pause_after(ms(30_000), ms(200)), LONGEST);
        assert_eq!(pause_after(ms(30_000), ms(20_000)), ms(20_000), "as it was set");
    }

    /// Looks `after` so long, for `took`, and tells how far back.
    fn look(
        looks: &mut Looks,
        now: &mut Instant,
        after: u64,
        took: u64,
        complete: bool,
    ) -> Option<Duration> {
        *now += ms(after);
        let look = looks.begin_at(*now);
        *now += ms(took);
        looks.end_at(&look, complete, *now);
        look.within
    }

    #[test]
    fn a_look_is_at_what_came_due_since_the_one_before_and_now_and_then_at_all() {
        let (mut looks, mut now) = (Looks::default(), Instant::now());
        assert_eq!(look(&mut looks, &mut now, 0, 1_000, true), None, "the first");
        assert_eq!(look(&mut looks, &mut now, 9_000, 1, true), Some(LATE + ms(10_000)));
        assert_eq!(look(&mut looks, &mut now, 499, 1, true), Some(LATE + ms(500)));
        // The first took a second: 400 times as long after it began.
        assert_eq!(look(&mut looks, &mut now, 389_498, 1, true), Some(LATE + ms(389_499)));
        assert_eq!(look(&mut looks, &mut now, 499, 60_000, true), None);
        // This one a minute: 400 would be too many.
        assert!(look(&mut looks, &mut now, 539_999, 0, true).is_some());
        assert_eq!(look(&mut looks, &mut now, 1, 1, true), None);
        // And this one next to nothing.
        assert_eq!(look(&mut looks, &mut now, 500, 1, true), None);
    }

    #[test]
    fn what_was_left_over_is_looked_at_again() {
        let (mut looks, mut now) = (Looks::default(), Instant::now());
        // Nothing was complete yet.
        assert_eq!(look(&mut looks, &mut now, 0, 10_000, false), None);
        assert_eq!(look(&mut looks, &mut now, 500, 10_000, false), None);
        assert_eq!(look(&mut looks, &mut now, 500, 10_000, true), None);
        assert_eq!(look(&mut looks, &mut now, 500, 0, false), Some(LATE + ms(10_500)));
        assert_eq!(look(&mut looks, &mut now, 500, 0, true), Some(LATE + ms(11_000)));
        assert_eq!(look(&mut looks, &mut now, 500, 0, true), Some(LATE + ms(500)));
    }
}
