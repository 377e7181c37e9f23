//! Redemptions to record before they are sent, and why one was not recorded.

use std::time::Duration;

use time::OffsetDateTime;

use super::{Redemption, RedemptionState};
use crate::domain::{
    account::{Account, Refusal},
    id::RedemptionId,
    principal::RequestKey,
    provider::ProfileVersion,
    secret_key::Fingerprints,
};

/// A redemption to record before it is sent.
#[derive(Clone, Debug)]
pub struct NewRedemption {
    /// Its name, and the provider's idempotency key.
    pub redemption_id: RedemptionId,
    /// The caller's name for the request, and who calls.
    pub request: RequestKey,
    /// Which attempt of the request, counted from 1.
    pub attempt: i32,
    /// Ends the lease when the outcome is known.
    pub release_on_completion: bool,
    /// Finds the same code again.
    pub code_fingerprint: Fingerprints,
    /// The code, encrypted.
    pub code_ciphertext: Vec<u8>,
    /// The last characters of the code.
    pub code_last4: String,
    /// The amount that is expected, in minor units.
    pub expected_minor: Option<i64>,
    /// The provider told that amount, and nobody asked for it.
    pub expected_learned: bool,
    /// The version of the provider's profile that it is sent under.
    pub profile: ProfileVersion,
}

/// A redemption to record together with the lease on an account that is chosen for it.
#[derive(Clone, Debug)]
pub struct CardToBegin {
    /// The redemption.
    pub new: NewRedemption,
    /// How long it may take.
    pub limits: SendLimits,
}

/// What became of a redemption that was to be recorded.
#[derive(Clone, Debug)]
pub enum Begun {
    /// It is recorded, and may be sent.
    Recorded {
        /// As recorded.
        redemption: Box<Redemption>,
        /// The provider is not to begin after this time.
        not_after: OffsetDateTime,
    },
    /// The request has a redemption already: of this code or of another.
    SameRequest {
        /// That redemption's name.
        redemption_id: RedemptionId,
        /// Whether it is of the same code.
        same_code: bool,
    },
    /// Nothing was recorded.
    Refused(BeginRefusal),
}

/// Why a redemption was not recorded.
#[derive(Clone, Debug)]
pub enum BeginRefusal {
    /// There is no such pool.
    NoPool,
    /// There is no such account.
    NoAccount,
    /// The account does not allow it as it is.
    Account(Refusal, Box<Account>),
    /// The code is being redeemed, or was, for another request.
    CodeInUse {
        /// By this redemption.
        redemption_id: RedemptionId,
        /// For this request.
        request: RequestKey,
        /// Which stands so.
        state: RedemptionState,
    },
    /// The secret keys are not those that its code was encrypted with: others may be made with them.
    OldKeys,
    /// What stood in the way has gone: the same call may be made again.
    TryAgain,
}

/// How long the provider, and then this server, may take.
#[derive(Clone, Copy, Debug)]
pub struct SendLimits {
    /// How long after now the provider may still begin.
    pub not_after: Duration,
    /// When, from now, the reconciler takes over if nobody has settled it.
    pub take_over: Duration,
}
