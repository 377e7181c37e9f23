//! Amounts of money as providers write them: exact, or none.

use super::super::json::{Json, Number};
use crate::domain::money::{Currency, MAX_AMOUNT_MINOR, Money};

/// How an amount is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::provider) enum Unit {
    /// In the currency's minor unit.
    Minor,
    /// In its major unit, with a point before the decimals.
    Major,
    /// The same, with a symbol and commas: `$1,500.00`.
    Symbol,
}

/// The most characters of a symbol, before or after.
const MAX_SYMBOL: usize = 4;

/// In the currency's major unit, with all its decimals: `10.00`.
pub(super) fn major(money: Money) -> String {
    let decimals = money.currency.decimals();
    let sign = if money.amount_minor < 0 { "-" } else { "" };
    let (minor, unit) = (money.amount_minor.unsigned_abs(), 10_u64.pow(decimals));
    let whole = minor / unit;
    match decimals {
        0 => format!("{sign}{whole}"),
        _ => format!("{sign}{whole}.{:0width$}", minor % unit, width = decimals as usize),
    }
}

/// Reads an amount, in minor units. `None` is no amount: finer than the minor unit, negative, too
/// large, or written otherwise.
pub(super) fn read(value: &Json, unit: Unit, currency: Currency) -> Option<i64> {
    let shift = if unit == Unit::Minor { 0 } else { currency.decimals() };
    let minor = match (value, unit) {
        (Json::Number(number), Unit::Minor | Unit::Major) => number.whole(shift)?,
        (Json::Text(text), Unit::Minor) if is_digits(text) => digits(text, shift)?,
        (Json::Text(text), Unit::Major) => plain(text, shift)?,
        (Json::Text(text), Unit::Symbol) => plain(&without_symbol(text)?, shift)?,
        (Json::Number(number), Unit::Symbol) => number.whole(shift)?,
        _ => return None,
    };
    (0..=MAX_AMOUNT_MINOR).contains(&minor).then_some(minor)
}

/// `digits[.digits]`.
fn plain(text: &str, shift: u32) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    (is_digits(whole) && is_digits(fraction)).then(|| digits(text, shift)).flatten()
}

/// Leading zeros are not JSON's, but are no other number.
fn digits(text: &str, shift: u32) -> Option<i64> {
    let trimmed = text.trim_start_matches('0');
    let number = match trimmed.as_bytes().first() {
        Some(b'1'..=b'9') => Number::parse(trimmed)?,
        _ => Number::parse(&format!("0{trimmed}"))?,
    };
    number.whole(shift)
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// What is left without the symbol and the commas before each three digits.
fn without_symbol(text: &str) -> Option<String> {
    let is_inner = |c: char| c.is_ascii_digit() || c == '.' || c == ',';
    let start = text.find(|c: char| c.is_ascii_digit())?;
    let end = text.rfind(|c: char| c.is_ascii_digit())? + 1;
    let is_symbol = |part: &str| {
        part.chars().count() <= MAX_SYMBOL
            && !part.chars().any(|c| is_inner(c) || c == '-' || c == '(')
    };
    let (before, amount, after) = (&text[..start], &text[start..end], &text[end..]);
    if !is_symbol(before) || !is_symbol(after) || before.contains('−') {
        return None;
    }
    let (whole, fraction) = match amount.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (amount, None),
    };
    let groups: Vec<&str> = whole.split(',').collect();
    let are_groups = groups.iter().enumerate().all(|(index, group)| {
        is_digits(group)
            && (groups.len() == 1 || if index == 0 { group.len() <= 3 } else { group.len() == 3 })
    });
    let whole = groups.concat();
    let fraction = fraction.map_or(String::new(), |fraction| format!(".{fraction}"));
    are_groups.then(|| format!("{whole}{fraction}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str, unit: Unit, currency: &str) -> Option<i64> {
        let currency = Currency::parse(currency).unwrap();
        read(&Json::read(json.as_bytes()).ok().unwrap(), unit, currency)
    }

    #[test]
    fn minor_units_are_whole_numbers_or_digits() {
        for json in ["1000", "1000.0", "1e3", "\"1000\"", "\"01000\""] {
            assert_eq!(of(json, Unit::Minor, "USD"), Some(1000), "{json}");
        }
        for json in [
            "1000.5",
            "-1",
            "\"1000.0\"",
            "\"1e3\"",
            "\"\"",
            "\" 1\"",
            "true",
            "[1]",
            "1e16",
            "null",
        ] {
            assert_eq!(of(json, Unit::Minor, "USD"), None, "{json}");
        }
        assert_eq!(of("1000000000000000", Unit::Minor, "USD"), Some(1_000_000_000_000_000));
        assert_eq!(of("1000000000000001", Unit::Minor, "USD"), None);
    }

    #[test]
    fn major_units_have_the_currencys_decimals() {
        assert_eq!(of("10.05", Unit::Major, "USD"), Some(1005));
        assert_eq!(of("1.005e1", Unit::Major, "USD"), Some(1005));
        assert_eq!(of("\"10.050\"", Unit::Major, "USD"), Some(1005));
        assert_eq!(of("\"10\"", Unit::Major, "USD"), Some(1000));
        assert_eq!(of("\"0.5\"", Unit::Major, "USD"), Some(50));
        assert_eq!(of("\"00.50\"", Unit::Major, "USD"), Some(50));
        assert_eq!(of("0.29", Unit::Major, "USD"), Some(29));
        assert_eq!(of("1500", Unit::Major, "JPY"), Some(1500));
        assert_eq!(of("1.234", Unit::Major, "KWD"), Some(1234));
        assert_eq!(of("7.1", Unit::Major, "ZZZ"), Some(710));
        for json in
            ["10.005", "-1", "\"-1\"", "\"1e1\"", "\".5\"", "\"5.\"", "\"1,000\"", "\"$1\"", "\"\""]
        {
            assert_eq!(of(json, Unit::Major, "USD"), None, "{json}");
        }
        assert_eq!(of("1.5", Unit::Major, "JPY"), None);
    }

    #[test]
    fn a_symbol_and_commas_are_taken_away_and_nothing_else() {
        for (text, minor) in [
            ("$1,500.00", 150_000),
            ("$500.00", 50_000),
            ("500.00 USD", 50_000),
            ("US$ 5", 500),
            ("€12.5", 1250),
            ("1,234,567.89", 123_456_789),
            ("1500.00", 150_000),
        ] {
            assert_eq!(of(&format!("\"{text}\""), Unit::Symbol, "USD"), Some(minor), "{text}");
        }
        for text in [
            "1.500,00",
            "1,50",
            "-$5.00",
            "$-5.00",
            "($5.00)",
            "$1,5000.00",
            "$,500",
            "$5.00.00",
            "dollars 5",
            "$",
            "",
            "5 dollars",
            "$.50",
            "$5.",
            "$5.001",
            "12 34",
            "−5",
        ] {
            assert_eq!(of(&format!("\"{text}\""), Unit::Symbol, "USD"), None, "{text}");
        }
    }

    #[test]
    fn an_amount_is_written_with_all_its_decimals() {
        let money = |amount_minor, currency| Money {
            amount_minor,
            currency: Currency::parse(currency).unwrap(),
        };
        assert_eq!(major(money(1005, "USD")), "10.05");
        assert_eq!(major(money(5, "USD")), "0.05");
        assert_eq!(major(money(1500, "JPY")), "1500");
        assert_eq!(major(money(1234, "KWD")), "1.234");
    }
}
