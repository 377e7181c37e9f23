//! How a redemption is named to a provider.

use uuid::Uuid;

use crate::domain::id::RedemptionId;

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

    /// A key that was told, as [`Self::of`] would write it but for what [`Self::is_same`] passes over.
    /// `None`: no redemption of ours has it.
    pub fn normal(self, told: &str) -> Option<String> {
        match self {
            Self::Uuid => Uuid::try_parse(told).ok().map(|id| id.to_string()),
            Self::Hex(length) => {
                let is_key = told.len() == length && told.bytes().all(|b| b.is_ascii_hexdigit());
                is_key.then(|| told.to_ascii_lowercase())
            }
            Self::Digits(length) => {
                let digits = told.trim_start_matches('0');
                let is_key = !told.is_empty()
                    && digits.len() <= length
                    && digits.bytes().all(|b| b.is_ascii_digit());
                is_key.then(|| digits.to_owned())
            }
        }
    }

    /// The redemption of a key, where a key tells it.
    pub fn id_of(self, key: &str) -> Option<RedemptionId> {
        let is_all = matches!(self, Self::Uuid | Self::Hex(32..));
        is_all.then(|| Uuid::try_parse(key).ok().map(RedemptionId)).flatten()
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
