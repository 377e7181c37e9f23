//! Parsers of flags.

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::domain::{
    id::{
        AccountId, BatchId, Holder, PlanId, PoolId, ProviderId, RedemptionId, SubscriptionId,
        TokenName,
    },
    money::Currency,
    subscription::DeliveryId,
};

macro_rules! by_rule {
    ($($name:ident => $type:ty),* $(,)?) => {
        $(
            pub(in crate::cli) fn $name(text: &str) -> Result<$type, crate::domain::id::InvalidId> {
                <$type>::parse(text)
            }
        )*
    };
}

by_rule! {
    pool => PoolId, plan => PlanId, account => AccountId, batch => BatchId, holder => Holder,
    redemption => RedemptionId, provider => ProviderId,
    token => TokenName, subscription => SubscriptionId, delivery => DeliveryId,
}

/// Reads a time: RFC 3339, or a date, whose first moment in UTC it then is.
pub(in crate::cli) fn time(text: &str) -> Result<OffsetDateTime, &'static str> {
    let date = format!("{text}T00:00:00Z");
    let text = if text.contains('T') { text } else { &date };
    OffsetDateTime::parse(text, &Rfc3339)
        .map_err(|_| "must be a date such as 2026-11-24, or a time such as 2026-11-24T06:00:00Z")
}

/// Reads a currency code.
pub(in crate::cli) fn currency(text: &str) -> Result<Currency, &'static str> {
    Currency::parse(text).ok_or("must be three upper-case letters (ISO 4217), such as EUR")
}

/// Reads an amount in minor units, more than 0.
pub(in crate::cli) fn amount(text: &str) -> Result<i64, String> {
    let max = crate::domain::money::MAX_AMOUNT_MINOR;
    text.parse()
        .ok()
        .filter(|amount| (1..=max).contains(amount))
        .ok_or_else(|| format!("must be a whole number of minor units, 1 to {max}"))
}

/// Reads an amount in minor units, 0 or more.
pub(in crate::cli) fn amount_or_none(text: &str) -> Result<i64, String> {
    if text == "0" {
        Ok(0)
    } else {
        amount(text).map_err(|_| {
            let max = crate::domain::money::MAX_AMOUNT_MINOR;
            format!("must be a whole number of minor units, 0 to {max}")
        })
    }
}

/// The two ends of a range; each may be open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Range {
    /// The least.
    pub(in crate::cli) min: Option<i64>,
    /// The most.
    pub(in crate::cli) max: Option<i64>,
}

/// Reads a range of amounts: `MIN-MAX`, `MIN-` or `-MAX`.
pub(in crate::cli) fn range(text: &str) -> Result<Range, String> {
    let (min, max) = text.split_once('-').ok_or("must be written as MIN-MAX, MIN- or -MAX")?;
    let end = |text: &str| (!text.is_empty()).then(|| amount(text)).transpose();
    match (end(min)?, end(max)?) {
        (None, None) => Err("must have an end, as 1000-, -50000 or 1000-50000 have".to_owned()),
        (Some(min), Some(max)) if min > max => Err("must not begin above its end".to_owned()),
        (min, max) => Ok(Range { min, max }),
    }
}

/// Reads a country's code.
pub(in crate::cli) fn country(text: &str) -> Result<String, &'static str> {
    if text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_uppercase()) {
        Ok(text.to_owned())
    } else {
        Err("must be two upper-case letters (ISO 3166-1 alpha-2)")
    }
}

/// Reads a label, `key=value`. The value may hold `=`, and may be empty.
pub(in crate::cli) fn label(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("must be written as key=value"),
    }
}

/// A time as the API has it.
pub(crate) fn timestamp(at: time::OffsetDateTime) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: at.unix_timestamp(),
        nanos: i32::try_from(at.nanosecond()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_may_be_open_at_one_end_alone() {
        let ends = |text| range(text).map(|range| (range.min, range.max));
        assert_eq!(ends("100-900"), Ok((Some(100), Some(900))));
        assert_eq!(ends("900-900"), Ok((Some(900), Some(900))));
        assert_eq!(ends("100-"), Ok((Some(100), None)));
        assert_eq!(ends("-900"), Ok((None, Some(900))));
        for bad in ["", "-", "100", "900-100", "0-5", "1-2-3", "a-b", "--pool"] {
            assert!(range(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_label_is_a_key_and_a_value() {
        let pair = |key: &str, value: &str| Ok((key.to_owned(), value.to_owned()));
        assert_eq!(label("tier=gold"), pair("tier", "gold"));
        assert_eq!(label("note=a=b"), pair("note", "a=b"));
        assert_eq!(label("empty="), pair("empty", ""));
        assert!(label("gold").is_err() && label("=gold").is_err());
    }
}
