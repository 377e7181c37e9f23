//! Leases: how long they may be, and why one is gone.

use std::time::Duration;

use super::id::{AccountId, FencingToken, PoolId};

/// The bounds of any lease duration, whatever a pool says.
pub const MIN_LEASE: Duration = Duration::from_secs(1);
/// See [`MIN_LEASE`].
pub const MAX_LEASE: Duration = Duration::from_secs(24 * 60 * 60);

/// Names a lease: what every call under it repeats.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LeaseRef {
    /// The account's pool.
    pub pool_id: PoolId,
    /// The account.
    pub account_id: AccountId,
    /// The token of the acquisition.
    pub token: FencingToken,
}

/// Why a lease is no longer its holder's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseLoss {
    /// Its time passed.
    Expired,
    /// It was released, or its release was asked for.
    Released,
    /// The account was acquired again since.
    TakenOver,
}

impl LeaseLoss {
    /// The word for it in an error's metadata.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Released => "released",
            Self::TakenOver => "taken_over",
        }
    }
}
