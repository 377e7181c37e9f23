//! The names of things. Each can only be made from text that fits its rule, so the rest of the
//! program never has to ask.

use std::{fmt, sync::Arc};

use uuid::Uuid;

use super::text::looks_like_another;

/// Why a text is not a name of the kind wanted. Says the rule, never the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidId(pub &'static str);

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Reads the name, or says which rule it breaks.
            pub fn parse(text: &str) -> Result<Self, InvalidId> {
                $check(text)?;
                Ok(Self(text.into()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}

fn is_slug_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

fn check_slug(text: &str) -> Result<(), InvalidId> {
    if (1..=128).contains(&text.len()) && text.chars().all(is_slug_char) {
        Ok(())
    } else {
        Err(InvalidId("must be 1 to 128 letters (a-z, A-Z), digits, '.', '_' or '-'"))
    }
}

fn check_batch(text: &str) -> Result<(), InvalidId> {
    if (1..=64).contains(&text.len()) && text.chars().all(is_slug_char) {
        Ok(())
    } else {
        Err(InvalidId("must be 1 to 64 letters (a-z, A-Z), digits, '.', '_' or '-'"))
    }
}

fn check_text(text: &str, max_chars: usize) -> bool {
    let mut chars = 0;
    for c in text.chars() {
        chars += 1;
        if c.is_control() || chars > max_chars {
            return false;
        }
    }
    chars > 0 && text.trim() == text
}

fn check_stored_name(text: &str) -> Result<(), InvalidId> {
    check_text(text, 256).then_some(()).ok_or(InvalidId(
        "must be 1 to 256 characters, without control characters and without spaces around it",
    ))
}

fn check_name(text: &str) -> Result<(), InvalidId> {
    check_stored_name(text)?;
    check_look(text)
}

fn check_look(text: &str) -> Result<(), InvalidId> {
    looks_like_another(text).map_or(Ok(()), |rule| Err(InvalidId(rule)))
}

fn check_item(text: &str) -> Result<(), InvalidId> {
    check_text(text, 128).then_some(()).ok_or(InvalidId(
        "must be 1 to 128 characters, without control characters and without spaces around it",
    ))?;
    check_look(text)
}

fn check_request(text: &str) -> Result<(), InvalidId> {
    check_item(text)?;
    if text.starts_with(BATCH_PREFIX) {
        return Err(InvalidId("must not begin with \"batch:\", which names the items of batches"));
    }
    Ok(())
}

fn check_provider(text: &str) -> Result<(), InvalidId> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if (1..=64).contains(&text.len()) && text.chars().all(fits) {
        Ok(())
    } else {
        Err(InvalidId("must be 1 to 64 of a-z, 0-9 and '-'"))
    }
}

fn check_token(text: &str) -> Result<(), InvalidId> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    if (1..=64).contains(&text.len()) && text.chars().all(fits) {
        Ok(())
    } else {
        Err(InvalidId("must be 1 to 64 of a-z, 0-9, '-' and '.'"))
    }
}

const BATCH_PREFIX: &str = "batch:";

text_id!(
    /// A pool.
    PoolId, check_slug
);
text_id!(
    /// A subscription, in its pool.
    SubscriptionId, check_slug
);
text_id!(
    /// A provider: the id of its profile.
    ProviderId, check_provider
);
text_id!(
    /// A token.
    TokenName, check_token
);
text_id!(
    /// A plan; unique in its pool.
    PlanId, check_slug
);
text_id!(
    /// An account: its owner's own key, unique in its pool, and the provider's `account_ref`.
    AccountId, check_name
);
text_id!(
    /// Who asks for a lease.
    Holder, check_name
);
text_id!(
    /// The caller's name for an acquisition or a redemption; unique in its pool.
    RequestId, check_request
);
text_id!(
    /// A batch; unique in its pool.
    BatchId, check_batch
);
text_id!(
    /// An item; unique in its batch.
    ItemId, check_item
);

impl AccountId {
    /// Reads a name that is stored: one of an earlier version may look like another.
    pub fn stored(text: &str) -> Result<Self, InvalidId> {
        check_stored_name(text).map(|()| Self(text.into()))
    }
}

impl Holder {
    /// Reads a name that is stored: one of an earlier version may look like another.
    pub fn stored(text: &str) -> Result<Self, InvalidId> {
        check_stored_name(text).map(|()| Self(text.into()))
    }
}

impl ProviderId {
    /// The built-in profile.
    pub fn built_in() -> Self {
        Self("holdfast".into())
    }

    /// Whether it is the built-in profile.
    pub fn is_built_in(&self) -> bool {
        &*self.0 == "holdfast"
    }
}

impl RequestId {
    /// A name that nobody else has, for a caller who gave none.
    pub fn random() -> Self {
        Self(Uuid::now_v7().to_string().into())
    }

    /// The name of a batch's item among the pool's redemptions. Two items never share one, because
    /// a [`BatchId`] has no colon in it.
    pub fn of_item(batch: &BatchId, item: &ItemId) -> Self {
        Self(format!("{BATCH_PREFIX}{batch}:{item}").into())
    }

    /// The bounds of the request ids of a batch's items in byte order: the first is at or after
    /// `.0`, the last before `.1`.
    pub fn range_of_batch(batch: &BatchId) -> (String, String) {
        // ';' is the character after ':'.
        (format!("{BATCH_PREFIX}{batch}:"), format!("{BATCH_PREFIX}{batch};"))
    }

    /// The bounds of this request id alone in byte order: no id has the character that would be next.
    pub fn range_of_one(&self) -> (String, String) {
        (self.to_string(), format!("{self}\u{1}"))
    }

    /// Reads a name that Holdfast itself stored, or that looks a redemption up: a batch item's too.
    pub fn parse_any(text: &str) -> Result<Self, InvalidId> {
        const RULE: InvalidId =
            InvalidId("must be 1 to 256 characters, without control characters");
        if check_text(text, 256) { Ok(Self(text.into())) } else { Err(RULE) }
    }
}

/// A redemption; also the provider's idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RedemptionId(pub Uuid);

impl RedemptionId {
    /// A new one. UUIDv7, so that the ids of one server rise with time.
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// Reads one from its text.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        Uuid::try_parse(text).map(Self).map_err(|_| InvalidId("must be a UUID"))
    }
}

impl Default for RedemptionId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for RedemptionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The fencing token of an acquisition: rises by one at each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FencingToken(pub i64);

impl fmt::Display for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_bounded_and_plain() {
        assert!(PoolId::parse("steam-eu_1.0").is_ok());
        for bad in ["", "a b", "a/b", "a:b", "ä", "a\n", &"x".repeat(129)] {
            assert!(PoolId::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_refuse_control_characters_and_padding() {
        assert!(AccountId::parse("konto 7 – ä").is_ok());
        for bad in ["", " a", "a ", "a\u{0}b", "a\u{7f}", &"x".repeat(257)] {
            assert!(AccountId::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_that_look_like_others_are_refused_unless_they_are_stored() {
        for bad in ["anna\u{200b}", "an\u{202e}na", "an\u{a0}na", "a\u{308}nna"] {
            assert!(AccountId::parse(bad).is_err() && Holder::parse(bad).is_err(), "{bad:?}");
            assert!(ItemId::parse(bad).is_err() && RequestId::parse(bad).is_err(), "{bad:?}");
            assert!(AccountId::stored(bad).is_ok() && Holder::stored(bad).is_ok(), "{bad:?}");
            assert!(RequestId::parse_any(bad).is_ok(), "{bad:?}");
        }
        assert!(AccountId::stored("a\u{0}").is_err());
    }

    #[test]
    fn item_names_of_different_batches_never_meet() {
        let id = |batch: &str, item: &str| {
            RequestId::of_item(&BatchId::parse(batch).unwrap(), &ItemId::parse(item).unwrap())
        };
        assert_ne!(id("a", "b:c"), id("a-b", "c"));
        assert!(BatchId::parse("a:b").is_err());
        assert!(RequestId::parse("batch:a:b").is_err());
        let (low, high) = RequestId::range_of_batch(&BatchId::parse("a").unwrap());
        assert!(low.as_str() <= id("a", "z").as_str() && id("a", "z").as_str() < high.as_str());
        assert!(id("a.b", "z").as_str() < low.as_str() || id("a.b", "z").as_str() >= high.as_str());
    }
}
