//! Providers: which profile a redemption is pinned to.

use std::fmt;

use time::OffsetDateTime;

use super::id::ProviderId;

/// A version of a provider's profile. Redemptions are pinned to one, because what was sent under it is looked up and
/// sent again under it too.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProfileVersion {
    /// The provider.
    pub provider_id: ProviderId,
    /// The profile's version.
    pub version: i32,
}

impl fmt::Display for ProfileVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.provider_id, self.version)
    }
}

/// A version of a profile, as it was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedProfile {
    /// Which one.
    pub version: ProfileVersion,
    /// The file, byte by byte.
    pub text: String,
    /// When it was first applied.
    pub applied_at: OffsetDateTime,
}
