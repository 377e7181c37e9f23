//! Money as APIs write it.

/// The decimals of a currency: ISO 4217's, for those that do not have two.
fn decimals(currency_code: &str) -> u32 {
    match currency_code {
        "CLP" | "ISK" | "JPY" | "KRW" | "PYG" | "UGX" | "VND" | "XAF" | "XOF" => 0,
        "BHD" | "IQD" | "JOD" | "KWD" | "LYD" | "OMR" | "TND" => 3,
        _ => 2,
    }
}

/// `$1,500.00`.
pub(super) fn symbol(minor: i64, currency_code: &str) -> String {
    let symbol = match currency_code {
        "USD" => "$",
        "EUR" => "€",
        "GBP" => "£",
        other => other,
    };
    let decimals = decimals(currency_code);
    let unit = 10_u64.pow(decimals);
    let (whole, part) = (minor.unsigned_abs() / unit, minor.unsigned_abs() % unit);
    let digits = whole.to_string();
    let mut text = if minor < 0 { format!("-{symbol}") } else { symbol.to_owned() };
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if decimals > 0 {
        text.push_str(&format!(".{part:0width$}", width = decimals as usize));
    }
    text
}

/// A JSON number in the currency's own unit.
pub(super) fn to_major(minor: i64, currency_code: &str) -> f64 {
    minor as f64 / f64::from(10_u32.pow(decimals(currency_code)))
}

/// Minor units of such a number, unless it is finer than them.
pub(super) fn from_major(major: f64, currency_code: &str) -> Option<i64> {
    let minor = (major * f64::from(10_u32.pow(decimals(currency_code)))).round();
    let is_exact = (0.0..1e15).contains(&minor) && to_major(minor as i64, currency_code) == major;
    is_exact.then_some(minor as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_written_with_the_decimals_of_its_currency() {
        assert_eq!(symbol(50_000, "USD"), "$500.00");
        assert_eq!(symbol(123_456_705, "EUR"), "€1,234,567.05");
        assert_eq!(symbol(1500, "JPY"), "JPY1,500");
        assert_eq!(symbol(7, "KWD"), "KWD0.007");
        assert_eq!(to_major(1029, "USD"), 10.29);
    }

    #[test]
    fn a_number_is_read_exactly_or_not_at_all() {
        for minor in (0..200_000).chain([99_999_999_999_999]) {
            assert_eq!(from_major(to_major(minor, "USD"), "USD"), Some(minor));
        }
        assert_eq!(from_major(10.005, "USD"), None);
        assert_eq!(from_major(-1.0, "USD"), None);
        assert_eq!(from_major(1e300, "USD"), None);
        assert_eq!(from_major(10.0, "JPY"), Some(10));
    }
}
