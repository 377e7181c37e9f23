//! Providers: which profile a redemption is pinned to, and whether a provider works.

use std::{fmt, time::Duration};

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

/// What holds back the calls to a provider, as all servers see it, by the database's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderStatus {
    /// The provider.
    pub provider_id: ProviderId,
    /// It fails as a whole.
    pub failing: Option<Failing>,
    /// Until when it wants no calls.
    pub paused_until: Option<OffsetDateTime>,
    /// Until when its profile's brake allows no card that might be refused.
    pub braked_until: Option<OffsetDateTime>,
}

/// A provider that fails as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failing {
    /// Since when. `None`: that was not kept.
    pub since: Option<OffsetDateTime>,
    /// When it is tried next; when that has passed, by the next call about it.
    pub next_try_at: Option<OffsetDateTime>,
    /// How many tries in a row have failed.
    pub failed_tries: u32,
}

/// What a call shows of the provider as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Whether it works.
    pub health: Health,
    /// For how long it wants no calls, where it says so.
    pub hold: Option<Duration>,
}

/// Whether a provider works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It answers.
    Working,
    /// A call that would fail like all others: no whole answer, an error of its own, our credentials refused.
    Failing,
    /// The call does not show it.
    Unknown,
}

/// How many calls in a row must fail on a server before the provider counts as failing as a whole.
pub const FAILURES_IN_A_ROW: u32 = 10;
/// Until a provider that has begun to fail is tried again.
const FIRST_TRY: Duration = Duration::from_secs(1);
/// The longest between two tries.
const LONGEST_TRY: Duration = Duration::from_secs(60);

/// In how long a provider that fails is tried again: twice as long after each try that failed.
pub fn next_try(failed_tries: u32) -> Duration {
    FIRST_TRY.saturating_mul(1 << failed_tries.min(16)).min(LONGEST_TRY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_become_rarer_up_to_a_minute() {
        let seconds = [0, 1, 2, 5, 6, 7, u32::MAX].map(|tries| next_try(tries).as_secs());
        assert_eq!(seconds, [1, 2, 4, 32, 60, 60, 60]);
    }
}
