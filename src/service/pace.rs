//! How often to look for what is due.

use std::time::Duration;

/// Looks take at most one part in so many of the time.
const SHARE: u32 = 10;
/// But nothing that is due waits longer than this for a look.
const LONGEST: Duration = Duration::from_secs(10);

/// The pause after a look that took so long: `interval`, unless looks are slow. They read past all that was
/// taken and given back since the table was last vacuumed, and while anybody's old transaction is open no vacuum
/// clears that away: looks that came all the time would then be most of what the database does.
pub(super) fn pause_after(took: Duration, interval: Duration) -> Duration {
    interval.max((took * SHARE).min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_looks_are_rarer_and_none_is_left_out() {
        let ms = Duration::from_millis;
        assert_eq!(pause_after(ms(1), ms(200)), ms(200), "a quick one");
        assert_eq!(pause_after(ms(300), ms(200)), ms(3_000));
        assert_eq!(pause_after(ms(30_000), ms(200)), LONGEST);
        assert_eq!(pause_after(ms(30_000), ms(20_000)), ms(20_000), "as it was set");
    }
}
