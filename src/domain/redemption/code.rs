//! Card codes.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

use crate::domain::id::InvalidId;

/// A card's code. Never printed: its `Debug` is a placeholder, it has no `Display`, and its memory
/// is wiped when it is dropped.
#[derive(Clone)]
pub struct CardCode(SecretString);

impl CardCode {
    /// Reads a code: 4 to 128 printable ASCII characters, without the spaces around it. At least 4 of them must be
    /// other than spaces and hyphens, which a fingerprint ignores.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        let text = text.trim_matches(' ');
        let significant = text.bytes().filter(|b| !matches!(b, b' ' | b'-')).count();
        if text.len() <= 128 && significant >= 4 && text.bytes().all(|b| (b' '..=b'~').contains(&b))
        {
            Ok(Self(text.into()))
        } else {
            Err(InvalidId(
                "must be 4 to 128 printable ASCII characters, 4 of them other than ' ' and '-'",
            ))
        }
    }

    /// The code as it is sent to the provider. For the wire and the cipher alone.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// What the fingerprint is made of: people write the same code with and without spaces and
    /// hyphens, and in both cases.
    pub fn normalised(&self) -> SecretString {
        let text: String = self
            .expose()
            .chars()
            .filter(|c| !matches!(c, ' ' | '-'))
            .map(|c| c.to_ascii_uppercase())
            .collect();
        text.into()
    }

    /// The last four characters, for people who hold the card; nothing of a code so short that
    /// four characters would give half of it away.
    pub fn last4(&self) -> &str {
        let code = self.expose();
        if code.len() >= 8 { &code[code.len() - 4..] } else { "" }
    }
}

impl fmt::Debug for CardCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CardCode(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_never_prints() {
        let code = CardCode::parse("SECRET-CODE-1234").unwrap();
        assert!(!format!("{code:?}").contains("SECRET"));
    }

    #[test]
    fn codes_are_bounded_and_printable() {
        for bad in
            ["", "abc", "   ", "----", "a - b - c", "ab\tcd", "abcé", "ab\ncd", &"x".repeat(129)]
        {
            assert!(CardCode::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(CardCode::parse("  AB-12  ").unwrap().expose(), "AB-12");
    }

    #[test]
    fn writing_a_code_differently_does_not_change_its_fingerprint() {
        let normal = |text| CardCode::parse(text).unwrap().normalised().expose_secret().to_owned();
        assert_eq!(normal("ab12-cd34 ef"), normal("AB12CD34EF"));
        assert_ne!(normal("AB12CD34EF"), normal("AB12CD34EG"));
    }

    #[test]
    fn four_characters_are_shown_only_of_a_longer_code() {
        assert_eq!(CardCode::parse("ABCD-1234").unwrap().last4(), "1234");
        assert_eq!(CardCode::parse("ABC1234").unwrap().last4(), "");
    }
}
