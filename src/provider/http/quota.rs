//! The headers by which a server tells how many calls are left.

use std::time::Duration;

use http::HeaderMap;
use time::OffsetDateTime;

use super::super::profile::{Quota, QuotaUnit};

/// The shortest and the longest time without calls.
const BOUNDS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(24 * 3600));

/// In how long there are more calls, where none is left.
pub(in crate::provider) fn used_up(quota: &Quota, headers: &HeaderMap) -> Option<Duration> {
    let read = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<f64>().ok();
    let remaining = read(&quota.remaining)?;
    if remaining.is_nan() || remaining >= 1.0 {
        return None;
    }
    let reset = read(&quota.reset)?;
    let now = OffsetDateTime::now_utc().unix_timestamp_nanos() as f64 / 1e9;
    let seconds = match quota.unit {
        QuotaUnit::Seconds => reset,
        QuotaUnit::Ms => reset / 1e3,
        QuotaUnit::Epoch => reset - now,
        QuotaUnit::EpochMs => reset / 1e3 - now,
    };
    let (least, most) = BOUNDS;
    Some(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(most).clamp(least, most))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(unit: QuotaUnit, remaining: &str, reset: &str) -> Option<Duration> {
        let quota = Quota { remaining: "x-left".to_owned(), reset: "x-reset".to_owned(), unit };
        let mut headers = HeaderMap::new();
        headers.insert("x-left", remaining.parse().unwrap());
        headers.insert("x-reset", reset.parse().unwrap());
        used_up(&quota, &headers)
    }

    #[test]
    fn the_time_is_read_in_its_unit_and_bounded() {
        let seconds = Duration::from_secs;
        assert_eq!(after(QuotaUnit::Seconds, "0", "30"), Some(seconds(30)));
        assert_eq!(after(QuotaUnit::Seconds, "0", "1.5"), Some(Duration::from_millis(1500)));
        assert_eq!(after(QuotaUnit::Ms, "0", "30000"), Some(seconds(30)));
        let in_a_minute = OffsetDateTime::now_utc().unix_timestamp() + 60;
        for (unit, reset) in [
            (QuotaUnit::Epoch, in_a_minute.to_string()),
            (QuotaUnit::EpochMs, (in_a_minute * 1000).to_string()),
        ] {
            let after = after(unit, "0", &reset).unwrap();
            assert!(seconds(55) < after && after <= seconds(60), "{unit:?} {after:?}");
        }
        assert_eq!(after(QuotaUnit::Seconds, "0", "-5"), Some(BOUNDS.0), "long past");
        assert_eq!(after(QuotaUnit::Seconds, "0", "1e300"), Some(BOUNDS.1));
    }

    #[test]
    fn calls_that_are_left_or_headers_that_say_nothing_hold_nothing_back() {
        for (remaining, reset) in
            [("1", "30"), ("12", "30"), ("", "30"), ("none", "30"), ("0", "soon"), ("nan", "30")]
        {
            assert_eq!(after(QuotaUnit::Seconds, remaining, reset), None, "{remaining} {reset}");
        }
    }
}
