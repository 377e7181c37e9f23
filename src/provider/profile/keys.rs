//! How a redemption is named to a provider.

use uuid::Uuid;

use crate::domain::id::RedemptionId;

/// Whose key it is, as far as the key itself tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyOf {
    /// The redemption with this id.
    Redemption(RedemptionId),
    /// The one that has this key, in the form in which keys are recorded.
    Holder(String),
}

/// How a redemption's id is written as a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// As it is.
    Uuid,
    /// Its last hex digits, so many.
    Hex(usize),
    /// As a decimal number, its last digits, so many.
    Digits(usize),
}

impl KeyKind {
    /// Whether different ids have different keys.
    pub fn is_whole(self) -> bool {
        match self {
            Self::Uuid => true,
            Self::Hex(length) => length >= 32,
            // Ids that differ by ten to this power are made thousands of years apart.
            Self::Digits(length) => length >= 38,
        }
    }

    /// The key of a redemption.
    pub fn of(self, id: RedemptionId) -> String {
        let RedemptionId(id) = id;
        match self {
            Self::Uuid => id.to_string(),
            Self::Hex(length) => {
                let hex = id.simple().to_string();
                hex[hex.len() - length..].to_owned()
            }
            Self::Digits(length) => {
                let power =
                    u32::try_from(length).ok().and_then(|length| 10_u128.checked_pow(length));
                let number = power.map_or(id.as_u128(), |power| id.as_u128() % power);
                format!("{number:0length$}")
            }
        }
    }

    /// Whether a key that was told is this one: in whatever case, and digits also as a number.
    pub(in crate::provider) fn is_same(self, ours: &str, told: &str) -> bool {
        let zeros = |key: &'_ str| key.trim_start_matches('0').to_owned();
        match self {
            Self::Digits(_) => zeros(ours) == zeros(told),
            Self::Uuid | Self::Hex(_) => ours.eq_ignore_ascii_case(told),
        }
    }

    /// Whose a key is that was told. `None`: nobody's, as it is no key of this kind.
    pub fn read(self, told: &str) -> Option<KeyOf> {
        let whole = |id: Uuid| Some(KeyOf::Redemption(RedemptionId(id)));
        match self {
            Self::Uuid => Uuid::try_parse(told).ok().and_then(whole),
            Self::Hex(length) => {
                let is_hex = told.len() == length && told.bytes().all(|b| b.is_ascii_hexdigit());
                match is_hex {
                    false => None,
                    true if self.is_whole() => Uuid::try_parse(told).ok().and_then(whole),
                    true => Some(KeyOf::Holder(told.to_ascii_lowercase())),
                }
            }
            Self::Digits(length) => {
                let digits = told.trim_start_matches('0');
                let is_key = !told.is_empty()
                    && told.bytes().all(|b| b.is_ascii_digit())
                    && digits.len() <= length;
                match is_key {
                    false => None,
                    true if self.is_whole() => {
                        digits.parse().ok().map(Uuid::from_u128).and_then(whole)
                    }
                    true => Some(KeyOf::Holder(format!("{digits:0>length$}"))),
                }
            }
        }
    }

    /// A key that was told, as it is kept. `None`: no redemption of ours has it.
    pub fn normal(self, told: &str) -> Option<String> {
        match self.read(told)? {
            KeyOf::Redemption(id) => Some(self.of(id)),
            KeyOf::Holder(key) => Some(key),
        }
    }

    /// The redemption of a key, where a key tells it.
    pub fn id_of(self, key: &str) -> Option<RedemptionId> {
        match self.read(key)? {
            KeyOf::Redemption(id) => Some(id),
            KeyOf::Holder(_) => None,
        }
    }

    /// A key for examples.
    pub(in crate::provider) fn sample(self) -> String {
        self.of(RedemptionId(Uuid::from_u128(0x0190_163d_8694_739b_aea5_966c_26f8_ad90)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_told_leads_back_to_its_redemption() {
        let id = RedemptionId(Uuid::from_u128(0x0190_163d_8694_739b_aea5_966c_26f8_ad90));
        for kind in [KeyKind::Uuid, KeyKind::Hex(32), KeyKind::Digits(38), KeyKind::Digits(39)] {
            let key = kind.of(id);
            let wanted = Some(KeyOf::Redemption(id));
            assert_eq!(kind.read(&key), wanted, "{kind:?}");
            assert_eq!(kind.read(&key.to_uppercase()), wanted, "{kind:?}");
        }
        for kind in [KeyKind::Hex(16), KeyKind::Digits(16)] {
            let key = kind.of(id);
            assert_eq!(kind.read(&key.to_uppercase()), Some(KeyOf::Holder(key)), "{kind:?}");
        }
        let kind = KeyKind::Digits(16);
        assert_eq!(kind.read("42"), Some(KeyOf::Holder("0000000000000042".to_owned())));
        for (kind, odd) in [
            (KeyKind::Uuid, "x"),
            (KeyKind::Hex(16), "0"),
            (KeyKind::Hex(32), "g0000000000000000000000000000000"),
            (KeyKind::Digits(16), "12345678901234567"),
            (KeyKind::Digits(16), "-1"),
            (KeyKind::Digits(39), "999999999999999999999999999999999999999"),
        ] {
            assert_eq!(kind.read(odd), None, "{kind:?}: {odd}");
        }
    }

    #[test]
    fn a_key_that_is_told_is_found_again_however_it_is_written() {
        let id = RedemptionId(Uuid::from_u128(0x0190_163d_8694_739b_aea5_966c_0000_0012));
        for kind in [KeyKind::Uuid, KeyKind::Hex(16), KeyKind::Hex(32), KeyKind::Digits(20)] {
            let key = kind.of(id);
            let normal = kind.normal(&key).unwrap();
            assert_eq!(kind.normal(&key.to_uppercase()).as_ref(), Some(&normal), "{kind:?}");
            for none in ["", "not ours", &key[1..key.len() - 1], &format!("{key}0000")] {
                let is_digits = matches!(kind, KeyKind::Digits(_)) && none.len() < key.len();
                let is_none = kind.normal(none).is_none();
                assert!(is_none || is_digits && !none.is_empty(), "{kind:?} {none}");
            }
            let tells = matches!(kind, KeyKind::Uuid | KeyKind::Hex(32));
            assert_eq!(kind.id_of(&normal), tells.then_some(id), "{kind:?}");
        }
        // A number may lose its zeros.
        let digits = KeyKind::Digits(20);
        assert_eq!(digits.normal("00000000000000000042"), digits.normal("42"));
        assert_eq!(digits.normal("0"), digits.normal("00000000000000000000"));
    }
}
