//! Scrubbing: makes text that came from the provider fit to be kept and shown.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use percent_encoding::percent_decode_str;
use secrecy::ExposeSecret;

use crate::{
    domain::redemption::CardCode,
    failpoints::{self, Guard},
};

/// The longest message that is kept, in characters.
pub(super) const MAX_MESSAGE_CHARS: usize = 500;

/// `text` without control characters, without the card's code however it is written, and at most
/// `max_chars` long.
///
/// The order matters: a control character inside a code must not hide it, and the cut must not
/// leave the first half of one.
pub(super) fn clean(code: &CardCode, text: &str, max_chars: usize) -> String {
    let text: String = text.chars().filter(|c| !c.is_control()).collect();
    let text = if failpoints::holds(Guard::CodesAreTakenOut) {
        without_code(code, text.trim())
    } else {
        text
    };
    cut(text, max_chars)
}

/// At most so many characters of a text.
fn cut(text: String, max_chars: usize) -> String {
    match text.char_indices().nth(max_chars) {
        None => text,
        Some((end, _)) => {
            let mut short: String = text[..end].chars().take(max_chars.saturating_sub(1)).collect();
            short.push('…');
            short
        }
    }
}

/// The shortest secret that is searched for: a shorter one would be found in many a word.
const MIN_SECRET_CHARS: usize = 3;

/// The same, without secrets too. A code may not be at hand.
pub(super) fn clean_of(
    code: Option<&CardCode>,
    secrets: &[String],
    text: &str,
    max_chars: usize,
) -> String {
    let text: String = text.chars().filter(|c| !c.is_control()).collect();
    let mut clean_text = without_secrets(code, secrets, &text);
    // A path or a form that is quoted, encoded by whatever rules.
    for encoded in [clean_text.clone(), clean_text.replace('+', " ")] {
        let decoded = percent_decode_str(&encoded).decode_utf8_lossy().into_owned();
        let clean_of_decoded = without_secrets(code, secrets, &decoded);
        if clean_of_decoded != decoded {
            clean_text = clean_of_decoded;
        }
    }
    match code {
        Some(code) => clean(code, &clean_text, max_chars),
        None => cut(clean_text, max_chars),
    }
}

fn without_secrets(code: Option<&CardCode>, secrets: &[String], text: &str) -> String {
    let code = code.filter(|_| failpoints::holds(Guard::CodesAreTakenOut));
    let secrets = secrets.iter().map(String::as_str);
    let secrets = secrets.filter(|secret| secret.chars().count() >= MIN_SECRET_CHARS);
    let needles = secrets.chain(code.map(CardCode::expose)).flat_map(variants);
    let text = needles.fold(text.to_owned(), |text, needle| text.replace(&needle, "…"));
    code.map_or(text.clone(), |code| without_code(code, &text))
}

/// A secret as answers may write it: as it is, in a URL, in JSON, in base64.
pub(super) fn variants(secret: &str) -> Vec<String> {
    let in_url = percent_encoding::utf8_percent_encode(secret, percent_encoding::NON_ALPHANUMERIC);
    let in_json = serde_json::Value::from(secret).to_string();
    let in_json = in_json[1..in_json.len() - 1].to_owned();
    let mut variants = vec![secret.to_owned(), in_url.to_string(), in_json, BASE64.encode(secret)];
    variants.sort_unstable();
    variants.dedup();
    variants
}

/// Whether `text` holds the card's code, however it is written there.
pub fn holds_code(code: &CardCode, text: &str) -> bool {
    let text: String = text.chars().filter(|c| !c.is_control()).collect();
    without_code(code, &text) != text
}

/// The most letters and digits of one of [`codes_in`] and the fewest. A shorter one is found in many a word.
const CODE_LETTERS: std::ops::RangeInclusive<usize> = 6..=64;
/// The most parts that such a code is written in.
const MAX_PARTS: usize = 8;
/// The most of them that are found in one text.
const MAX_CODES: usize = 256;

/// What in a text may be a card's code, whichever: each of its words, and parts in a row that have a digit or are in
/// capitals.
pub fn codes_in(text: &str) -> Vec<CardCode> {
    let words = text.split_whitespace();
    let words = words.map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()).to_owned());
    let parts: Vec<&str> =
        text.split(|c: char| !c.is_alphanumeric()).filter(|part| !part.is_empty()).collect();
    let is_part = |part: &&str| {
        part.chars().any(|c| c.is_ascii_digit()) || !part.chars().any(char::is_lowercase)
    };
    let rows = parts.split(|part| !is_part(part)).flat_map(|row| {
        let ends = move |from| from + 1..=row.len().min(from + MAX_PARTS);
        (0..row.len()).flat_map(move |from| ends(from).map(move |to| row[from..to].concat()))
    });
    let mut codes: Vec<_> = words.chain(rows).collect();
    codes.retain(|code| CODE_LETTERS.contains(&code.chars().count()));
    codes.sort_unstable();
    codes.dedup();
    codes.truncate(MAX_CODES);
    codes.iter().filter_map(|code| CardCode::parse(code).ok()).collect()
}

/// Letters and digits that a code must have to be searched for by them alone: fewer would be found in
/// many a word.
const MIN_LETTERS: usize = 4;

/// Replaces the code everywhere, in any case, with anything between its letters and digits. A provider may write
/// it with points, or with spaces and hyphens of its own kind.
fn without_code(code: &CardCode, text: &str) -> String {
    let normalised = code.normalised();
    let wanted: Vec<char> =
        normalised.expose_secret().chars().filter(char::is_ascii_alphanumeric).collect();
    let text = text.replace(code.expose(), "…");
    if wanted.len() < MIN_LETTERS {
        return text;
    }
    let text = text.as_str();
    let found = occurrences(text, &wanted);
    let mut clean = String::with_capacity(text.len());
    let mut from = 0;
    for (start, end) in found {
        clean.push_str(&text[from..start]);
        clean.push('…');
        from = end;
    }
    clean.push_str(&text[from..]);
    clean
}

/// The byte ranges of `text` that read as `wanted` once normalised, in order, not overlapping.
fn occurrences(text: &str, wanted: &[char]) -> Vec<(usize, usize)> {
    let letters: Vec<(usize, usize, char)> = text
        .char_indices()
        .filter(|(_, c)| c.is_ascii_alphanumeric())
        .map(|(at, c)| (at, at + c.len_utf8(), c.to_ascii_uppercase()))
        .collect();
    let mut found = Vec::new();
    let mut at = 0;
    while at + wanted.len() <= letters.len() {
        let window = &letters[at..at + wanted.len()];
        if window.iter().map(|(_, _, c)| c).eq(wanted) {
            found.push((window[0].0, window[window.len() - 1].1));
            at += wanted.len();
        } else {
            at += 1;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code() -> CardCode {
        CardCode::parse("Ab12-cd34").unwrap()
    }

    #[test]
    fn a_code_is_found_however_it_is_written() {
        for text in [
            "Ab12-cd34",
            "AB12CD34",
            "ab12 cd34",
            "A-b-1-2-C-D-3-4",
            "AB12\u{0}CD34",
            "AB12\u{2011}CD34",
            "AB12\u{a0}CD34",
            "AB12.CD34",
            "AB12_\u{200b}CD34",
        ] {
            assert_eq!(clean(&code(), &format!("card <{text}> no"), 500), "card <…> no", "{text}");
        }
        assert_eq!(clean(&code(), "AB12CD34AB12CD34", 500), "……");
        assert_eq!(clean(&code(), "AB12CD3", 500), "AB12CD3");
    }

    #[test]
    fn a_code_and_secrets_are_found_as_they_were_sent() {
        let code = CardCode::parse("AB/12+cd\"34").unwrap();
        let secrets = ["p/i n%\"ü".to_owned()];
        for text in [
            "AB%2F12%2Bcd%2234",
            "AB/12+cd\\\"34",
            "QUIvMTIrY2QiMzQ=",
            "p%2Fi%20n%25%22%C3%BC",
            "p%2Fi+n%25%22%C3%BC",
            "p/i%20n%25%22%c3%bc",
            "p/i n%\\\"ü",
        ] {
            let clean = clean_of(Some(&code), &secrets, &format!("no route /c/{text}/x"), 500);
            assert_eq!(clean, "no route /c/…/x", "{text}");
        }
    }

    #[test]
    fn a_text_that_holds_the_code_is_told_from_one_that_does_not() {
        assert!(holds_code(&code(), "the card ab12 cd34 was\ncredited"));
        assert!(holds_code(&code(), "AB12\nCD34"));
        for text in ["", "ticket 12 … 34", "AB12CD3", "sim-29, seen on 2026-11-25"] {
            assert!(!holds_code(&code(), text), "{text}");
        }
    }

    #[test]
    fn what_may_be_a_code_is_found_as_it_would_be_written_down() {
        let found = |text: &str| -> Vec<_> {
            codes_in(text).iter().map(|code| code.expose().to_owned()).collect()
        };
        assert_eq!(found("no: ABCDEF, or gift-123456."), ["123456", "ABCDEF", "gift-123456"]);
        let groups = found("the card 1234-5678 9012 was put in on 5 May");
        assert!(groups.contains(&"123456789012".to_owned()), "{groups:?}");
        assert_eq!(found("seen by alice, no 4711"), [""; 0]);
        let numbers: String = (100_000..101_000).map(|n| format!("{n} ")).collect();
        assert_eq!(found(&numbers).len(), MAX_CODES);
    }

    #[test]
    fn a_code_of_signs_is_found_too() {
        assert_eq!(clean(&CardCode::parse("+*/:").unwrap(), "no +*/: no", 500), "no … no");
    }

    #[test]
    fn text_is_bounded_and_has_no_control_characters() {
        assert_eq!(clean(&code(), "\u{1b}[31mred\r\n\u{0}", 500), "[31mred");
        let long = clean(&code(), &"ä".repeat(600), 500);
        assert_eq!(long.chars().count(), 500);
        assert!(long.ends_with("ä…"));
        assert_eq!(clean(&code(), &"ä".repeat(500), 500).chars().count(), 500);
    }

    #[test]
    fn the_cut_never_leaves_half_a_code() {
        let text = format!("{}AB12CD34", "x".repeat(497));
        assert!(!clean(&code(), &text, 500).contains("AB"));
    }
}
