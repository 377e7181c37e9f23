//! Holds: an account that failed is not used for a while.

use std::time::Duration;

/// What was wrong with an account that failed. It is on hold for a while. A card's own failure has no such cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HoldCause {
    /// The provider refused its login.
    LoginInvalid,
    /// It has had as much as the provider allows.
    LimitReached,
    /// The provider wants it to be slower.
    Throttled,
}

impl HoldCause {
    /// Every cause.
    pub const ALL: [Self; 3] = [Self::LoginInvalid, Self::LimitReached, Self::Throttled];

    /// As the database has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LoginInvalid => "LOGIN_INVALID",
            Self::LimitReached => "LIMIT_REACHED",
            Self::Throttled => "THROTTLED",
        }
    }

    /// Reads what the database has.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.as_str() == text)
    }

    /// What a provider's failure code says about the account.
    pub fn of_failure(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| code.strip_prefix("ACCOUNT_") == Some(cause.as_str()))
    }
}

/// How long an account is on hold after a failure that was its own, by cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holds {
    /// After the provider refused its login.
    pub login_invalid: Duration,
    /// After it had as much as the provider allows.
    pub limit_reached: Duration,
    /// After the provider wanted it to be slower.
    pub throttled: Duration,
    /// No hold is longer, however many failures there are in a row.
    pub longest: Duration,
}

impl Holds {
    /// How long the first hold in a row is.
    pub fn of(&self, cause: HoldCause) -> Duration {
        match cause {
            HoldCause::LoginInvalid => self.login_invalid,
            HoldCause::LimitReached => self.limit_reached,
            HoldCause::Throttled => self.throttled,
        }
    }
}

/// What to change of [`Holds`].
#[derive(Clone, Copy, Debug, Default)]
pub struct HoldsChange {
    /// See [`Holds`].
    pub login_invalid: Option<Duration>,
    /// See [`Holds`].
    pub limit_reached: Option<Duration>,
    /// See [`Holds`].
    pub throttled: Option<Duration>,
    /// See [`Holds`].
    pub longest: Option<Duration>,
}
