//! Amounts of money in files: exact, or none.

use clap::ValueEnum;

use crate::domain::money::{Currency, MAX_AMOUNT_MINOR};

/// What amounts are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Amounts {
    /// In the currency's minor units: 1000 is ten euros.
    Minor,
    /// In its major units: 10.00, 10,00 or €10.00.
    Major,
}

/// Reads an amount in minor units, of at least `min`.
pub(super) fn minor(text: &str, min: i64) -> Result<i64, String> {
    match text.parse::<i64>() {
        Ok(amount) if are_digits(text) && (min..=MAX_AMOUNT_MINOR).contains(&amount) => Ok(amount),
        _ => Err(format!(
            "must be a whole number of minor units, {min} to {MAX_AMOUNT_MINOR}, in digits only{}",
            if text.contains(['.', ',']) {
                "; --amounts major reads amounts such as 10.00"
            } else {
                ""
            }
        )),
    }
}

/// Reads an amount in major units, of at least `min` minor ones: `10.00`, `10,00`, `10`, and with the currency's code or
/// symbol before or after it.
pub(super) fn major(text: &str, min: i64, currency: Currency) -> Result<i64, String> {
    let decimals = currency.decimals() as usize;
    let example = if decimals == 0 { "10".to_owned() } else { format!("10.{:0decimals$}", 0) };
    let number = without_symbol(text, currency)?;
    let (whole, fraction) = match number.split_once(['.', ',']) {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (number, None),
    };
    if !are_digits(whole) || fraction.is_some_and(|fraction| !are_digits(fraction)) {
        return Err(format!(
            "must be an amount of {currency} such as {example}: digits with one point or comma, and nothing \
             between thousands"
        ));
    }
    if fraction.is_some_and(|fraction| fraction.len() != decimals) {
        let many = if decimals == 0 { "no".to_owned() } else { decimals.to_string() };
        return Err(format!(
            "must have {many} digits after the point or comma, as {example} has: that is how many \
             {currency} has (a point or comma between thousands is not read)"
        ));
    }
    if fraction.is_some() && decimals == 3 && may_be_thousands(whole) {
        return Err(format!(
            "may be read in two ways: the point or comma may stand before the {currency}'s {decimals} decimals, or \
             between thousands. Write the file in minor units, and say --amounts minor"
        ));
    }
    let zeros = "0".repeat(decimals);
    let digits = format!("{whole}{}", fraction.unwrap_or(&zeros));
    match digits.parse::<i64>() {
        Ok(amount) if (min..=MAX_AMOUNT_MINOR).contains(&amount) => Ok(amount),
        _ => Err(format!("must be {min} to {MAX_AMOUNT_MINOR} of the smallest unit of {currency}")),
    }
}

/// The number without the currency's code or symbol, which must be this currency's.
fn without_symbol(text: &str, currency: Currency) -> Result<&str, String> {
    let is_digit = |c: char| c.is_ascii_digit();
    let (Some(first), Some(last)) = (text.find(is_digit), text.rfind(is_digit)) else {
        return Ok(text);
    };
    let (before, number, after) =
        (text[..first].trim(), &text[first..=last], text[last + 1..].trim());
    let mark = match (before, after) {
        ("", "") => return Ok(text),
        (mark, "") | ("", mark) => mark,
        _ => return Ok(text),
    };
    let is_own = mark.eq_ignore_ascii_case(currency.as_str())
        || currency.symbol().is_some_and(|symbol| symbol == mark);
    if is_own {
        Ok(number)
    } else if mark.chars().all(|c| c.is_ascii_punctuation() && c != '$') {
        // No currency is meant: a sign, or half a number.
        Ok(text)
    } else {
        Err(format!("has the sign of another currency than {currency}"))
    }
}

/// Whether three digits after these could be the next thousand: nobody writes more than three, or a zero, before a mark
/// between thousands.
fn may_be_thousands(whole: &str) -> bool {
    whole.len() <= 3 && !whole.starts_with('0')
}

fn are_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, currency: &str) -> Result<i64, String> {
        major(text, 1, Currency::parse(currency).unwrap())
    }

    #[test]
    fn amounts_in_major_units_are_exact_in_the_digits_of_their_currency() {
        for (text, currency, amount) in [
            ("10.00", "EUR", 1000),
            ("10,00", "EUR", 1000),
            ("10", "EUR", 1000),
            ("€10.00", "EUR", 1000),
            ("€ 10,00", "EUR", 1000),
            ("10,00 €", "EUR", 1000),
            ("10,00\u{a0}€", "EUR", 1000),
            ("EUR 10.00", "EUR", 1000),
            ("10.00 eur", "EUR", 1000),
            ("$0.07", "USD", 7),
            ("0.29", "USD", 29),
            ("1000", "JPY", 1000),
            ("¥500", "JPY", 500),
            ("0.500", "KWD", 500),
            ("0,500", "KWD", 500),
            ("01.500", "KWD", 1500),
            ("1500.000", "KWD", 1_500_000),
            ("15", "KWD", 15_000),
            ("9007199254740.93", "EUR", 900_719_925_474_093),
        ] {
            assert_eq!(read(text, currency), Ok(amount), "{text}");
        }
    }

    #[test]
    fn amounts_that_may_be_read_otherwise_are_refused_with_a_hint() {
        for (text, currency, why) in [
            ("10.0", "EUR", "must have 2 digits after the point"),
            ("1.000", "EUR", "must have 2 digits after the point"),
            ("10.000", "EUR", "between thousands is not read"),
            ("1.5", "KWD", "must have 3 digits after the point"),
            ("1.500", "KWD", "may be read in two ways"),
            ("1,000", "KWD", "may be read in two ways"),
            ("123.000", "BHD", "may be read in two ways"),
            ("1.000", "TND", "say --amounts minor"),
            ("1,000.000", "KWD", "nothing between thousands"),
            ("1,000", "EUR", "between thousands is not read"),
            ("1,000", "JPY", "between thousands is not read"),
            ("1.000", "JPY", "between thousands is not read"),
            ("10.00", "JPY", "must have no digits after the point"),
            ("1,000.00", "EUR", "nothing between thousands"),
            ("1.000,00", "EUR", "nothing between thousands"),
            ("1e3", "EUR", "nothing between thousands"),
            ("-10.00", "EUR", "digits with one point"),
            ("+10.00", "EUR", "digits with one point"),
            (".50", "EUR", "digits with one point"),
            ("10.", "EUR", "digits with one point"),
            ("ten", "EUR", "digits with one point"),
            ("€", "EUR", "digits with one point"),
            ("$10.00", "EUR", "the sign of another currency than EUR"),
            ("10.00 USD", "EUR", "the sign of another currency than EUR"),
            ("€10.00 EUR", "EUR", "digits with one point"),
            ("0.00", "EUR", "must be 1 to"),
            ("99999999999999999999.00", "EUR", "must be 1 to"),
            ("10000000000000.01", "EUR", "must be 1 to"),
        ] {
            let rule = read(text, currency).unwrap_err();
            assert!(rule.contains(why), "{text}: {rule}");
        }
    }
}
