//! Names must show all of themselves: two that look alike must be one.

use unicode_normalization::is_nfc;
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory as _};

/// Letters and marks that show nothing: of Unicode's property `Default_Ignorable_Code_Point` those that are not of the
/// category "format", and the empty Braille pattern.
const SHOW_NOTHING: [(char, char); 9] = [
    ('\u{34f}', '\u{34f}'),
    ('\u{115f}', '\u{1160}'),
    ('\u{17b4}', '\u{17b5}'),
    ('\u{180b}', '\u{180f}'),
    ('\u{2800}', '\u{2800}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{fe00}', '\u{fe0f}'),
    ('\u{ffa0}', '\u{ffa0}'),
    ('\u{e0000}', '\u{e0fff}'),
];

/// Why a text may look like another one; `None` when it shows all that it holds.
pub fn looks_like_another(text: &str) -> Option<&'static str> {
    if text.is_ascii() {
        None
    } else if text.chars().any(is_hidden) {
        Some(
            "must not have characters that are not seen (such as zero-width and right-to-left marks), or spaces \
             other than the plain one",
        )
    } else if !is_nfc(text) {
        Some(
            "must be in Unicode's normal form C (NFC): the same letters in another form look the same",
        )
    } else {
        None
    }
}

fn is_hidden(c: char) -> bool {
    use GeneralCategory::{Format, LineSeparator, ParagraphSeparator, SpaceSeparator};

    let category = c.general_category();
    c != ' ' && matches!(category, Format | LineSeparator | ParagraphSeparator | SpaceSeparator)
        || SHOW_NOTHING.iter().any(|(first, last)| (*first..=*last).contains(&c))
        || c == char::REPLACEMENT_CHARACTER
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_look_like_others_are_told() {
        for text in ["", "konto 7", "konto 7 – ä", "Łódź", "大阪", "दिल्ली", "🎁"]
        {
            assert_eq!(looks_like_another(text), None, "{text:?}");
        }
        for c in [
            '\u{ad}',
            '\u{200b}',
            '\u{200d}',
            '\u{200e}',
            '\u{202e}',
            '\u{2066}',
            '\u{feff}',
            '\u{a0}',
            '\u{2003}',
            '\u{3000}',
            '\u{2028}',
            '\u{2029}',
            '\u{61c}',
            '\u{3164}',
            '\u{fe0f}',
            '\u{e0041}',
            '\u{fffd}',
        ] {
            let why = looks_like_another(&format!("a{c}b")).unwrap();
            assert!(why.contains("not seen"), "{c:?}");
        }
        assert!(looks_like_another("a\u{308}").unwrap().contains("NFC"));
        assert!(
            looks_like_another("\u{212b}").unwrap().contains("NFC"),
            "the sign of the angstrom"
        );
    }
}
