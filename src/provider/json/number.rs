//! Numbers as JSON has them, exactly.

/// A number as it was written. Two of the same value are equal, however each is written.
#[derive(Clone, Debug)]
pub(in crate::provider) struct Number(String);

/// A value: `digits` times ten to the power of `exponent`, in its one normal form.
#[derive(Debug, PartialEq, Eq)]
struct Decimal {
    negative: bool,
    /// Without zeros at either end; empty is zero.
    digits: String,
    exponent: i64,
}

/// Exponents beyond this are cut off: no value that is asked for is near.
const MAX_EXPONENT: i64 = 1 << 40;
/// Digits that always fit an `i64`.
const SAFE_DIGITS: i64 = 18;

impl Number {
    /// Reads what JSON allows for a number.
    pub(in crate::provider) fn parse(text: &str) -> Option<Self> {
        let is_one = !text.is_empty()
            && text.starts_with(|c: char| c == '-' || c.is_ascii_digit())
            && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
            && text.ends_with(|c: char| c.is_ascii_digit());
        is_one.then(|| Self(text.to_owned()))
    }

    /// A number that was found to be one.
    pub(super) fn written(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// As it was written.
    pub(in crate::provider) fn as_str(&self) -> &str {
        &self.0
    }

    /// The value times ten to the power of `shift`, where that is a whole number of at most 18 digits.
    pub(in crate::provider) fn whole(&self, shift: u32) -> Option<i64> {
        let Decimal { negative, digits, exponent } = self.decimal();
        if digits.is_empty() {
            return Some(0);
        }
        let zeros = exponent + i64::from(shift);
        let length = i64::try_from(digits.len()).ok()?;
        if zeros < 0 || length + zeros > SAFE_DIGITS {
            return None;
        }
        let whole: i64 = digits.parse().ok()?;
        let whole = whole.checked_mul(10_i64.checked_pow(u32::try_from(zeros).ok()?)?)?;
        Some(if negative { -whole } else { whole })
    }

    /// Nearly the value; infinite where it is too large.
    pub(in crate::provider) fn about(&self) -> f64 {
        self.0.parse().unwrap_or(f64::INFINITY)
    }

    fn decimal(&self) -> Decimal {
        let (negative, text) = match self.0.strip_prefix('-') {
            Some(text) => (true, text),
            None => (false, &*self.0),
        };
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = format!("{whole}{fraction}");
        let kept = digits.trim_end_matches('0');
        let dropped = digits.len() - kept.len();
        let kept = kept.trim_start_matches('0');
        if kept.is_empty() {
            return Decimal { negative: false, digits: String::new(), exponent: 0 };
        }
        let size = |length: usize| i64::try_from(length).unwrap_or(MAX_EXPONENT);
        let exponent = read_exponent(exponent) - size(fraction.len()) + size(dropped);
        Decimal { negative, digits: kept.to_owned(), exponent }
    }
}

fn read_exponent(text: &str) -> i64 {
    let is_negative = text.starts_with('-');
    let digits = text.trim_start_matches(['+', '-']);
    let size = digits.parse().unwrap_or(MAX_EXPONENT).min(MAX_EXPONENT);
    if is_negative { -size } else { size }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0 || self.decimal() == other.decimal()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Number {
        Number::parse(text).unwrap()
    }

    #[test]
    fn equal_values_are_equal_however_they_are_written() {
        for (one, other) in [
            ("1", "1.0"),
            ("1000", "1e3"),
            ("0", "-0.0e7"),
            ("1234.5", "12345E-1"),
            ("100000000000000000000000000000001", "100000000000000000000000000000001.0"),
        ] {
            assert_eq!(number(one), number(other));
        }
        for (one, other) in [("1", "-1"), ("1", "10"), ("9007199254740993", "9007199254740992")] {
            assert_ne!(number(one), number(other));
        }
    }

    #[test]
    fn a_whole_number_is_exact_or_none() {
        assert_eq!(number("10.05").whole(2), Some(1005));
        assert_eq!(number("-0.5e1").whole(0), Some(-5));
        assert_eq!(number("1e400").whole(0), None);
        assert_eq!(number("1e-400").whole(2), None);
        assert_eq!(number("0e99999999999999999999").whole(0), Some(0));
        assert_eq!(number("1e99999999999999999999").whole(0), None);
        assert_eq!(number("10.005").whole(2), None);
        assert_eq!(number("123456789012345678").whole(0), Some(123_456_789_012_345_678));
    }

    #[test]
    fn what_json_does_not_have_is_no_number() {
        for text in [
            "", "+1", "01", ".5", "1.", "1e", "NaN", "Infinity", " 1", "1 ", "0x10", "true",
            "\"1\"",
        ] {
            assert!(Number::parse(text).is_none(), "{text:?}");
        }
    }
}
