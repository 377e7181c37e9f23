//! Credentials of accounts: what a provider asks of one, such as its login.

use std::{collections::BTreeMap, fmt};

use secrecy::{ExposeSecret as _, SecretString};

/// The most credentials that an account may have.
pub const MAX_CREDENTIALS: usize = 32;
/// The longest value, in bytes.
pub const MAX_VALUE_BYTES: usize = 4096;

const TOO_MANY: &str = "must be at most 32";
const BAD_NAME: &str = "must have names of 1 to 128 letters (a-z, A-Z), digits, '.', '_' and '-', not beginning with '.'";
const BAD_VALUE: &str = "must be 1 to 4096 bytes without control characters";

/// Whether a template can name it: `account.secret.NAME`, and other names that a profile's author chooses.
pub fn is_name(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        && !text.starts_with('.')
}

/// The credentials of an account, by name. Never printed: their `Debug` has nothing of them, and values are wiped from
/// memory when they are dropped.
#[derive(Clone, Default)]
pub struct Credentials(BTreeMap<String, SecretString>);

/// A rule that credentials break. Has no value, and no name that breaks a rule: it may be a value in the wrong place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The credential; `None` when it is about all of them.
    pub name: Option<String>,
    /// The rule.
    pub rule: &'static str,
}

impl Credentials {
    /// Takes credentials whose names and values keep the rules, or tells which they break.
    ///
    /// # Errors
    /// All faults at once; of too many, those of the first 32.
    pub fn new(given: BTreeMap<String, SecretString>) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        if given.len() > MAX_CREDENTIALS {
            faults.push(Fault { name: None, rule: TOO_MANY });
        }
        let first = || given.iter().take(MAX_CREDENTIALS);
        if !first().all(|(name, _)| is_name(name)) {
            faults.push(Fault { name: None, rule: BAD_NAME });
        }
        let bad = first().filter(|(name, value)| is_name(name) && !is_value(value.expose_secret()));
        faults.extend(bad.map(|(name, _)| Fault { name: Some(name.clone()), rule: BAD_VALUE }));
        if faults.is_empty() { Ok(Self(given)) } else { Err(faults) }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names and values. For requests and the cipher alone.
    pub fn expose(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, value.expose_secret()))
    }

    /// As they are encrypted: a line `NAME=VALUE` for each. Neither has the end of a line, and no name has `=`.
    pub fn to_text(&self) -> SecretString {
        let bytes = self.expose().map(|(name, value)| name.len() + value.len() + 2).sum();
        // Of the right size at once: what a text leaves behind when it grows is not wiped.
        let mut text = String::with_capacity(bytes);
        for (name, value) in self.expose() {
            text.extend([name, "=", value, "\n"]);
        }
        text.into()
    }

    /// Reads what [`Self::to_text`] wrote; `None` when it did not.
    pub fn from_text(text: &str) -> Option<Self> {
        let read = |line: &str| {
            let (name, value) = line.split_once('=')?;
            Some((name.to_owned(), SecretString::from(value)))
        };
        Self::new(text.split_terminator('\n').map(read).collect::<Option<_>>()?).ok()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

fn is_value(text: &str) -> bool {
    (1..=MAX_VALUE_BYTES).contains(&text.len()) && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Credentials, Vec<Fault>> {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).into());
        Credentials::new(pairs.iter().map(pair).collect())
    }

    #[test]
    fn credentials_never_print() {
        let credentials = read(&[("login", "SECRET")]).unwrap();
        assert_eq!(format!("{credentials:?}"), "Credentials(…)");
    }

    #[test]
    fn all_faults_are_told_at_once_and_no_value_is() {
        let long = "S".repeat(MAX_VALUE_BYTES + 1);
        let faults = read(&[
            ("S E C R E T", "SECRET"),
            ("a", ""),
            ("b", "SE\nCRET"),
            ("c", &long),
            ("d", "SECRET\u{85}"),
            ("e", "a secret = ü"),
        ])
        .unwrap_err();
        let names: Vec<_> = faults.iter().map(|fault| fault.name.as_deref()).collect();
        assert_eq!(names, [None, Some("a"), Some("b"), Some("c"), Some("d")]);
        let shown = format!("{faults:?}");
        assert!(!["SE", "SS", "S E"].iter().any(|part| shown.contains(part)), "{shown}");
    }

    #[test]
    fn there_are_at_most_32() {
        let many = |count: usize, value: &str| {
            Credentials::new((0..count).map(|n| (n.to_string(), value.into())).collect())
        };
        assert!(many(MAX_CREDENTIALS, "v").is_ok());
        assert_eq!(many(MAX_CREDENTIALS + 1, "v").unwrap_err().len(), 1);
        assert_eq!(many(80_000, "").unwrap_err().len(), 1 + MAX_CREDENTIALS);
        assert!(TOO_MANY.ends_with(&MAX_CREDENTIALS.to_string()));
        assert!(BAD_VALUE.contains(&MAX_VALUE_BYTES.to_string()));
    }

    #[test]
    fn names_are_those_that_templates_can_have() {
        for good in ["a", "user_name", "A.b-9", &"x".repeat(128)] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", ".a", "a b", "ä", "a=b", "a\n", &"x".repeat(129)] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let pairs = [("a", "="), ("b", " x=y "), ("c.d", "\"\\ü")];
        let text = read(&pairs).unwrap().to_text();
        assert_eq!(text.expose_secret(), "a==\nb= x=y \nc.d=\"\\ü\n");
        let again = Credentials::from_text(text.expose_secret()).unwrap();
        assert_eq!(again.expose().collect::<Vec<_>>(), pairs);
        assert!(Credentials::from_text("").unwrap().is_empty());
        assert!(Credentials::from_text("a").is_none() && Credentials::from_text("a=\n").is_none());
    }
}
