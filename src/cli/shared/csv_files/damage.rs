//! Damage that a spreadsheet, or a program between it and us, does to a text: pure functions.
//!
//! Only what such programs write is refused, not what merely is unusual: a code is the provider's to
//! judge. What a field holds is never repeated.

use super::fields::undefused;
use crate::domain::id::InvalidId;

const SHORTENED: &str = "is a number that a spreadsheet shortened (as 1.23457E+15), and its last digits \
     are lost: format the column as text and export the file again";
const FORMULA: &str = "is a formula (it begins with =): write the text alone, or format the column as \
     text and export the file again";
const FAULT: &str = "is the error of a spreadsheet's formula (as #N/A or #REF!): correct the sheet and \
     export the file again";
const NOTHING: &str = "is a program's word for yes, no or nothing (as TRUE, NULL or Loading...): correct \
     the export";
const APOSTROPHE: &str = "begins with an apostrophe, by which a spreadsheet marks text: format the column \
     as text, take the apostrophe out and export the file again";
const NUMBER: &str = "was turned into a number (as 1234.0 or 1,234,567): format the column as text and \
     export the file again";
const DATE: &str = "was turned into a date (as 1-Mar or 3/1/2026): format the column as text, write the \
     value again and export the file";

/// The words of [`NOTHING`], in upper case.
const WORDS: [&str; 19] = [
    "TRUE",
    "FALSE",
    "WAHR",
    "FALSCH",
    "VRAI",
    "FAUX",
    "VERDADERO",
    "FALSO",
    "NULL",
    "(NULL)",
    "<NULL>",
    "NONE",
    "NAN",
    "N/A",
    "<NA>",
    "UNDEFINED",
    "\\N",
    "LOADING...",
    "[OBJECT OBJECT]",
];
/// In English and in German, as spreadsheets write them.
const MONTHS: [&str; 17] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec", "Mrz",
    "Mär", "Mai", "Okt", "Dez",
];

/// A name (of an account or an item) as it was before it was exported; or what is wrong with it.
pub(super) fn name(text: &str) -> Result<&str, InvalidId> {
    let exported = undefused(text);
    // What was marked as text on purpose is what its owner wrote.
    if exported.len() == text.len() { check_name(text).map(|()| text) } else { Ok(exported) }
}

/// Refuses a name that is not what its owner wrote.
fn check_name(text: &str) -> Result<(), InvalidId> {
    let rest = text.strip_prefix('\'');
    let is_marked =
        rest.is_some_and(|rest| rest.starts_with(|c: char| "=+-@0123456789".contains(c)));
    judge(&[
        (is_shortened(text), SHORTENED),
        (text.starts_with('='), FORMULA),
        (is_fault(text), FAULT),
        (WORDS.contains(&&*text.to_ascii_uppercase()), NOTHING),
        (is_marked, APOSTROPHE),
        // A short one may be a version.
        (is_whole_with_fraction(text, 6), NUMBER),
    ])
}

/// Refuses a code that is not what was printed on the card.
pub(super) fn check_code(text: &str) -> Result<(), InvalidId> {
    check_name(text)?;
    judge(&[
        (text.starts_with(['\'', '`']), APOSTROPHE),
        (is_whole_with_fraction(text, 1) || is_grouped(text), NUMBER),
        (is_date(text), DATE),
    ])
}

fn judge(rules: &[(bool, &'static str)]) -> Result<(), InvalidId> {
    match rules.iter().find(|(is_broken, _)| *is_broken) {
        Some((_, rule)) => Err(InvalidId(rule)),
        None => Ok(()),
    }
}

fn are_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// `1.23457E+15`, `1,23457e+15`, `1E+15`: one digit, an optional fraction, a sign and at least two
/// digits, as a spreadsheet writes it; or a fraction and a long exponent without a sign, as a program
/// does. Not `12.5E3` or `12E34`, which a code may be, and not `1234E-5678`.
fn is_shortened(text: &str) -> bool {
    let text = text.strip_prefix(['+', '-']).unwrap_or(text);
    let Some((mantissa, exponent)) = text.split_once(['e', 'E']) else { return false };
    let (mantissa, exponent) = (mantissa.trim(), exponent.trim());
    let signless = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    let (whole, has_fraction) = match mantissa.split_once(['.', ',']) {
        Some((whole, fraction)) if fraction.is_empty() || are_digits(fraction) => (whole, true),
        Some(_) => return false,
        None => (mantissa, false),
    };
    let is_signed = exponent.starts_with('+') || has_fraction && exponent.starts_with('-');
    are_digits(whole)
        && whole.len() == 1
        && are_digits(signless)
        && matches!(signless.len(), 2 | 3)
        && (is_signed || has_fraction && signless.len() == exponent.len())
}

/// `#N/A`, `#REF!`, `#DIV/0!`, `#NAME?`, also in other languages; `####`, where a column was too
/// narrow; LibreOffice's `Err:502`.
fn is_fault(text: &str) -> bool {
    if let Some(number) = text.strip_prefix("Err:") {
        return are_digits(number);
    }
    let Some(name) = text.strip_prefix('#') else { return false };
    let is_name = |name: &str| {
        !name.is_empty() && name.chars().all(|c| c.is_alphabetic() || "/0_¡¿".contains(c))
    };
    let without_mark = name.strip_suffix(['!', '?']);
    let short = ["N/A", "NA", "N/V", "NV", "N/D", "ND", "GETTING_DATA"];
    without_mark.is_some_and(is_name)
        || short.contains(&&*name.to_ascii_uppercase())
        || !name.is_empty() && name.bytes().all(|byte| byte == b'#')
}

/// Whether the digits are a number as a program writes it. One that begins with 0 is none.
fn is_number(digits: &str) -> bool {
    are_digits(digits) && (digits == "0" || !digits.starts_with('0'))
}

/// `1234.0`: what a table of numbers makes of 1234.
fn is_whole_with_fraction(text: &str, least_digits: usize) -> bool {
    text.split_once(['.', ',']).is_some_and(|(whole, fraction)| {
        is_number(whole)
            && whole.len() >= least_digits
            && are_digits(fraction)
            && fraction.len() <= 2
            && fraction.bytes().all(|byte| byte == b'0')
    })
}

/// `1,234,567`, `1.234.567` or `1'234'567`; with two decimals, `1,234.00`, also of a currency.
fn is_grouped(text: &str) -> bool {
    let amount = text.strip_prefix(['$', '€', '£']).unwrap_or(text).trim_start();
    [(',', '.'), ('.', ','), ('\'', '.')].into_iter().any(|(mark, point)| {
        let (whole, has_decimals) = match amount.split_once(point) {
            Some((whole, decimals)) if decimals.len() == 2 && are_digits(decimals) => (whole, true),
            Some(_) => return false,
            None => (amount, false),
        };
        let groups: Vec<&str> = whole.split(mark).collect();
        // `1.234` alone may be a code.
        groups.len() >= if has_decimals { 2 } else { 3 }
            && groups[0].len() <= 3
            && are_digits(groups[0])
            && !groups[0].starts_with('0')
            && groups[1..].iter().all(|group| group.len() == 3 && are_digits(group))
    })
}

/// `1-Mar`, `Mar-26`, `01. Mrz`, `Mai 26`, `01-Mar-2026`, `3/1/2026`, `01.03.2026`, and
/// `2026-03-01 00:00:00`. Not `2026-03-01`, which a code may be.
fn is_date(text: &str) -> bool {
    is_named_date(text) || is_date_of_figures(text) || has_time(text)
}

fn is_figure(part: &str, longest: usize, range: std::ops::RangeInclusive<u16>) -> bool {
    are_digits(part)
        && part.len() <= longest
        && part.parse::<u16>().is_ok_and(|figure| range.contains(&figure))
}

fn is_day(part: &str) -> bool {
    is_figure(part, 2, 1..=31)
}

fn is_month(part: &str) -> bool {
    is_figure(part, 2, 1..=12)
}

fn is_year(part: &str) -> bool {
    part.len() == 2 && are_digits(part) || is_figure(part, 4, 1900..=2099)
}

/// A month's name, beside a day, a year or both.
fn is_named_date(text: &str) -> bool {
    let is_name = |part: &str| MONTHS.contains(&part);
    let parts: Vec<&str> = match text.contains('-') {
        true => text.split('-').collect(),
        false => text.split([' ', '.']).filter(|part| !part.is_empty()).collect(),
    };
    match *parts {
        [a, b] => is_name(a) && (is_day(b) || is_year(b)) || is_day(a) && is_name(b),
        [a, b, c] => is_day(a) && is_name(b) && is_year(c),
        _ => false,
    }
}

/// Day, month and year with slashes, in the orders that are in use; with dots, day first.
fn is_date_of_figures(text: &str) -> bool {
    if let [day, month, year] = *text.split('.').collect::<Vec<_>>() {
        // Of two digits it may be a version or a code.
        return is_day(day) && is_month(month) && year.len() == 4 && is_year(year);
    }
    let [a, b, c] = *text.split('/').collect::<Vec<_>>() else { return false };
    let is_day_of_month = is_day(a) && is_month(b) || is_month(a) && is_day(b);
    is_day_of_month && is_year(c) || a.len() == 4 && is_year(a) && is_month(b) && is_day(c)
}

/// `2026-03-01 00:00:00`, `2026-03-01T00:00`, also with a fraction or a time zone.
fn has_time(text: &str) -> bool {
    let Some((date, time)) = text.split_once([' ', 'T']) else { return false };
    let [year, month, day] = *date.split('-').collect::<Vec<_>>() else { return false };
    let is_two = |part: &str| part.len() == 2 && are_digits(part);
    let time = time.get(..8).unwrap_or(time);
    let is_time = matches!(time.split(':').count(), 2 | 3) && time.split(':').all(is_two);
    year.len() == 4 && is_year(year) && is_month(month) && is_day(day) && is_time
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_was_defused_for_spreadsheets_is_read_back() {
        for (text, read) in [("'=A1", "=A1"), ("'+49", "+49"), ("'-x", "-x"), ("''@x", "'@x")] {
            assert_eq!(name(text), Ok(read));
        }
        assert_eq!(name("'t Hooft"), Ok("'t Hooft"));
        assert!(name("'0012").is_err() && name("=A1").is_err() && name("1E+15").is_err());
    }

    #[test]
    fn what_a_spreadsheet_leaves_is_refused_as_a_name_and_as_a_code() {
        for (rule, texts) in [
            (
                SHORTENED,
                &[
                    "1.23457E+15",
                    "1,23457E+15",
                    "1.23457e+15",
                    "1.23457E15",
                    "1.23457e15",
                    "1E+15",
                    "1.E+15",
                    "-1.2E+15",
                    "+1.2E+15",
                    "1.23457 E+15",
                    "1.23457E+015",
                    "1.5E-05",
                    "1E+100",
                ][..],
            ),
            (FORMULA, &["=\"0012\"", "=0012", "=HYPERLINK(\"x\")", "="]),
            (
                FAULT,
                &[
                    "#N/A",
                    "#n/a",
                    "#REF!",
                    "#VALUE!",
                    "#NAME?",
                    "#NUM!",
                    "#DIV/0!",
                    "#NULL!",
                    "#SPILL!",
                    "#CALC!",
                    "#ERROR!",
                    "#GETTING_DATA",
                    "#BEZUG!",
                    "#NV",
                    "#NOMBRE?",
                    "#¡REF!",
                    "####",
                    "##",
                    "Err:502",
                ],
            ),
            (
                NOTHING,
                &[
                    "TRUE",
                    "False",
                    "NULL",
                    "null",
                    "None",
                    "NaN",
                    "N/A",
                    "<NA>",
                    "undefined",
                    "\\N",
                    "WAHR",
                    "Falsch",
                    "VRAI",
                    "FAUX",
                    "Loading...",
                    "[object Object]",
                ],
            ),
            (APOSTROPHE, &["'0012", "'=A1", "'+49", "'1234567890123456"]),
            (NUMBER, &["1234567890123456.0", "123456,00"]),
        ] {
            for text in texts {
                assert_eq!(check_name(text), Err(InvalidId(rule)), "{text}");
                assert_eq!(check_code(text), Err(InvalidId(rule)), "{text}");
            }
        }
    }

    #[test]
    fn what_is_damaged_as_a_code_may_be_a_name() {
        for (rule, text) in [
            (APOSTROPHE, "'ABCD-1234"),
            (APOSTROPHE, "`ABCD-1234"),
            (NUMBER, "1234.0"),
            (NUMBER, "1,234,567"),
            (NUMBER, "1.234.567"),
            (NUMBER, "12'345'678"),
            (NUMBER, "1,234.00"),
            (NUMBER, "1.234,00"),
            (NUMBER, "$1,234.00"),
            (NUMBER, "0.00"),
            (DATE, "1-Mar"),
            (DATE, "Mar-26"),
            (DATE, "Mar 26"),
            (DATE, "Mai 26"),
            (DATE, "May-2026"),
            (DATE, "01. Mrz"),
            (DATE, "1. Mrz 2026"),
            (DATE, "01-Mar-2026"),
            (DATE, "3/1/2026"),
            (DATE, "31/12/26"),
            (DATE, "2026/03/01"),
            (DATE, "01.03.2026"),
            (DATE, "1.3.2026"),
            (DATE, "2026-03-01 00:00:00"),
            (DATE, "2026-03-01 00:00"),
            (DATE, "2026-03-01T00:00:00"),
            (DATE, "2026-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(check_code(text), Err(InvalidId(rule)), "{text}");
            assert_eq!(check_name(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn real_codes_and_names_are_taken() {
        for text in [
            "ABCD-EFGH-1234",
            "1234567890123456",
            "0012",
            "12E34",
            "12.5E3",
            "12.5E34",
            "12E+15",
            "1.5E3",
            "1E-15",
            "1E15",
            "1234E5678",
            "1234E-5678",
            "5E10",
            "E+15",
            "A1.5E+15",
            "1.2.3E+4",
            "DEAD-BEEF",
            "1234 5678 9012",
            "2026-03-01",
            "MAR-2026",
            "12-MAR",
            "Mar-ABCD",
            "1234.5678",
            "#A1B2C3",
            "#1",
            "TRUE-1234",
            "NULL0",
            "N0NE",
            "abc=",
            "A'BCD",
            "trueblue",
            "1/2",
            "1234/5678/9012",
            "12/34/5678",
            "99/99/9999",
            "31/12/2999",
            "3/1/123",
            "012.345.678",
            "000.123.456",
            "0012.00",
            "01.03.26",
            "99.03.2026",
            "1.234",
            "1,234",
            "0,123.00",
            "May-1234",
            "Mar-99-2026",
            "2026-13-01T00:00:00",
            "2026-03-01T0000",
            "WAHR-1234",
            "Loading",
            "Err:x",
            "12:30",
            "konto 7",
            "'t Hooft",
            "user@example.com",
            "v2.0",
            "2.0-beta",
        ] {
            assert_eq!(check_name(text), Ok(()), "{text}");
            if text != "'t Hooft" {
                assert_eq!(check_code(text), Ok(()), "{text}");
            }
        }
    }
}
