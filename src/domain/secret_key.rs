//! Secret keys by their ids: what the database keeps of them, and the fingerprints that they make.

use std::fmt;

use crate::domain::id::InvalidId;

/// A secret key's id: which of the key file's keys something was made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(u16);

impl KeyId {
    /// The key of a file without ids, and of all that was stored before keys had ids.
    pub const FIRST: Self = Self(1);

    /// Reads an id: 1 to 65535.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        let digits = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
        let number = text.parse().ok().filter(|_| digits);
        number.map(Self).ok_or(InvalidId("must be a number from 1 to 65535"))
    }

    /// As the database has it.
    pub fn number(self) -> i32 {
        self.0.into()
    }

    /// As it stands in what is encrypted.
    pub fn to_bytes(self) -> [u8; 2] {
        self.0.to_be_bytes()
    }

    /// Reads what [`Self::to_bytes`] wrote; `None` when it did not.
    pub fn from_bytes(bytes: [u8; 2]) -> Option<Self> {
        Self::from_number(u16::from_be_bytes(bytes).into())
    }

    /// Reads what [`Self::number`] answered.
    pub fn from_number(number: i32) -> Option<Self> {
        u16::try_from(number).ok().filter(|number| *number > 0).map(Self)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A code's fingerprint.
pub type Fingerprint = [u8; 32];

/// A code's fingerprints by every key that any was ever made with: the same code is found by one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprints {
    /// The key that new ones are made with.
    pub current: KeyId,
    /// The fingerprint of each key, the current one's among them.
    pub all: Vec<(KeyId, Fingerprint)>,
}

impl Fingerprints {
    /// The one to store.
    pub fn newest(&self) -> Fingerprint {
        self.of(self.current).unwrap_or_default()
    }

    /// The one of a key; `None` where there is no such key.
    pub fn of(&self, key: KeyId) -> Option<Fingerprint> {
        self.all.iter().find(|(id, _)| *id == key).map(|(_, fingerprint)| *fingerprint)
    }

    /// Whether a stored one is of the same code.
    pub fn is_of(&self, key: i32, stored: &[u8]) -> bool {
        KeyId::from_number(key).and_then(|key| self.of(key)).is_some_and(|it| it == stored)
    }
}

/// One of the first key.
impl From<Fingerprint> for Fingerprints {
    fn from(fingerprint: Fingerprint) -> Self {
        Self { current: KeyId::FIRST, all: vec![(KeyId::FIRST, fingerprint)] }
    }
}

/// What the database keeps of a secret key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredKey {
    /// The key.
    pub key_id: KeyId,
    /// Tells it from another without giving anything of it away.
    pub check_value: Vec<u8>,
    /// Whether new codes and credentials are encrypted with it.
    pub is_current: bool,
    /// Whether nothing that is stored is encrypted with it any more.
    pub is_retired: bool,
    /// What its fingerprints are made with, encrypted with another key.
    pub kept: Option<(KeyId, Vec<u8>)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_number_of_two_bytes_above_0() {
        for (text, number) in [("1", 1), ("65535", 65_535), ("20", 20)] {
            let id = KeyId::parse(text).unwrap();
            assert_eq!((id.number(), KeyId::from_bytes(id.to_bytes())), (number, Some(id)));
        }
        for bad in ["", "0", "01", "-1", "+1", "65536", "a", "1 "] {
            assert!(KeyId::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!((KeyId::from_number(0), KeyId::from_number(70_000)), (None, None));
    }

    #[test]
    fn a_fingerprint_is_compared_under_its_own_key() {
        let key = |number| KeyId::from_number(number).unwrap();
        let prints =
            Fingerprints { current: key(2), all: vec![(key(1), [1; 32]), (key(2), [2; 32])] };
        assert_eq!(prints.newest(), [2; 32]);
        assert!(prints.is_of(1, &[1; 32]) && prints.is_of(2, &[2; 32]));
        assert!(!prints.is_of(2, &[1; 32]) && !prints.is_of(3, &[2; 32]));
    }
}
