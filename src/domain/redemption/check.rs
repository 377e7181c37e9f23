//! Checks: redemptions whose outcome is to be found out.

use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

use super::Redemption;

/// A redemption that is the caller's to check.
#[derive(Clone, Debug)]
pub struct DueCheck {
    /// The redemption.
    pub redemption: Redemption,
    /// Its code, encrypted.
    pub code_ciphertext: Vec<u8>,
    /// The provider is not to begin after this time.
    pub not_after: OffsetDateTime,
    /// Checks so far, this one included.
    pub checks: i32,
    /// How many checks before this one, in a row, found the provider without the key.
    pub not_found_checks: i32,
    /// How many had an answer that proves nothing, since several in a row found the provider without the key.
    pub odd_checks: i32,
    /// When the last send after the send window began; `None` when there was none.
    pub sent_again_at: Option<OffsetDateTime>,
    /// The database's time.
    pub db_now: OffsetDateTime,
}

/// A redemption in flight on a dead server, to be looked up.
#[derive(Clone, Debug)]
pub struct EarlyCheck {
    /// The redemption.
    pub redemption: Redemption,
    /// Its code, encrypted.
    pub code_ciphertext: Vec<u8>,
    /// The provider is not to begin after this time.
    pub not_after: OffsetDateTime,
    /// The server that sends it, if it lives after all.
    pub server_id: Uuid,
    /// How long it is the caller's to look up.
    pub hold: Duration,
}
