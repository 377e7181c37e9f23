//! What a spreadsheet, or a program between it and us, leaves in place of a text: pure.
//!
//! Only what such programs write is refused, not what merely is unusual: a code is the provider's to
//! judge. What a field holds is never repeated.

use crate::domain::id::InvalidId;

const SHORTENED: &str = "is a number that a spreadsheet shortened (as 1.23457E+15), and its last digits \
     are lost: format the column as text and export the file again";
const FORMULA: &str = "is a formula (it begins with =): write the text alone, or format the column as \
     text and export the file again";
const FAULT: &str = "is the error of a spreadsheet's formula (as #N/A or #REF!): correct the sheet and \
     export the file again";
const NOTHING: &str = "is a program's word for yes, no or nothing (as TRUE, NULL or NaN): correct the \
     export";
const APOSTROPHE: &str = "begins with an apostrophe, by which a spreadsheet marks text: format the column \
     as text, take the apostrophe out and export the file again";
const NUMBER: &str = "was turned into a number (as 1234.0 or 1,234,567): format the column as text and \
     export the file again";
const DATE: &str = "was turned into a date (as 1-Mar or 3/1/2026): format the column as text, write the \
     value again and export the file";

/// The words of [`NOTHING`], in upper case.
const WORDS: [&str; 11] =
    ["TRUE", "FALSE", "NULL", "(NULL)", "<NULL>", "NONE", "NAN", "N/A", "<NA>", "UNDEFINED", "\\N"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Refuses a name (of an account or an item) that is not what its owner wrote.
pub(super) fn check_name(text: &str) -> Result<(), InvalidId> {
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

/// `1.23457E+15`, `1,23457e15`, `1E+15`, with or without signs. Not `12E34`, which a code may be, and
/// not `1234E-5678`: no number has such an exponent.
fn is_shortened(text: &str) -> bool {
    let text = text.strip_prefix(['+', '-']).unwrap_or(text);
    let Some((mantissa, exponent)) = text.split_once(['e', 'E']) else { return false };
    let (mantissa, exponent) = (mantissa.trim(), exponent.trim());
    let is_signed = exponent.starts_with('+');
    let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    let (whole, has_fraction) = match mantissa.split_once(['.', ',']) {
        Some((whole, fraction)) if fraction.is_empty() || are_digits(fraction) => (whole, true),
        Some(_) => return false,
        None => (mantissa, false),
    };
    are_digits(whole)
        && whole.len() <= 3
        && are_digits(exponent)
        && exponent.len() <= 3
        && (has_fraction || is_signed)
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

/// `1234.0`: what a table of numbers makes of 1234.
fn is_whole_with_fraction(text: &str, least_digits: usize) -> bool {
    text.split_once(['.', ',']).is_some_and(|(whole, fraction)| {
        are_digits(whole)
            && whole.len() >= least_digits
            && are_digits(fraction)
            && fraction.len() <= 2
            && fraction.bytes().all(|byte| byte == b'0')
    })
}

/// `1,234,567`, `1.234.567` or `1'234'567`.
fn is_grouped(text: &str) -> bool {
    [',', '.', '\''].into_iter().any(|mark| {
        let groups: Vec<&str> = text.split(mark).collect();
        groups.len() >= 3
            && groups[0].len() <= 3
            && groups.iter().all(|group| are_digits(group))
            && groups[1..].iter().all(|group| group.len() == 3)
    })
}

/// `1-Mar`, `Mar-26`, `01-Mar-2026`, `3/1/2026`, `2026-03-01 00:00:00`. Not `2026-03-01`, which a code
/// may be.
fn is_date(text: &str) -> bool {
    let is_short = |part: &str| are_digits(part) && matches!(part.len(), 1 | 2 | 4);
    let parts: Vec<&str> = text.split('-').collect();
    let months = parts.iter().filter(|part| MONTHS.contains(part)).count();
    let is_named = months == 1
        && matches!(parts.len(), 2 | 3)
        && parts.iter().all(|part| is_short(part) || MONTHS.contains(part));
    let slashed: Vec<&str> = text.split('/').collect();
    let has_time = text.split_once(' ').is_some_and(|(date, time)| {
        let shape = |text: &str, mark| text.split(mark).map(str::len).collect::<Vec<_>>();
        let are_figures = |text: &str, mark| text.split(mark).all(are_digits);
        shape(date, '-') == [4, 2, 2]
            && are_figures(date, '-')
            && shape(time, ':') == [2, 2, 2]
            && are_figures(time, ':')
    });
    is_named || slashed.len() == 3 && slashed.iter().all(|part| is_short(part)) || has_time
}

#[cfg(test)]
mod tests {
    use super::*;

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
                    "12E+15",
                    "1.E+15",
                    "-1.2E+15",
                    "+1.2E+15",
                    "1.23457 E+15",
                    "1.23457E+015",
                    "1.5E-05",
                    "123.4E+9",
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
            (DATE, "1-Mar"),
            (DATE, "Mar-26"),
            (DATE, "01-Mar-2026"),
            (DATE, "3/1/2026"),
            (DATE, "2026-03-01 00:00:00"),
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
