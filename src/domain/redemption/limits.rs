//! How long redemptions may be sent, and who takes over then.

use std::time::Duration;

use super::{Capabilities, SendLimits};

/// The times of a provider's redemptions, and what the provider can do for one in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedeemLimits {
    /// How long a redemption may be sent, sent again and polled before it is left in doubt.
    pub send_window: Duration,
    /// How long after it was recorded the provider may begin.
    pub not_after: Duration,
    /// The longest that one call to the provider takes.
    pub call_timeout: Duration,
    /// What the provider can do for a redemption in doubt.
    pub provider: Capabilities,
}

impl RedeemLimits {
    /// What is recorded with a redemption.
    pub fn send(&self) -> SendLimits {
        SendLimits { not_after: self.not_after, take_over: self.take_over() }
    }

    /// When nobody who is alive can still be at work on it: the last call has ended, and what it told
    /// has been recorded.
    pub fn take_over(&self) -> Duration {
        self.send_window + self.call_timeout + self.recording()
    }

    /// How long recording what a call told may take: as long as the call, and a second at least.
    fn recording(&self) -> Duration {
        self.call_timeout.max(Duration::from_secs(1))
    }

    /// How long a call that has begun, and the record of what it told, may take.
    pub fn last_call(&self) -> Duration {
        self.call_timeout + self.recording()
    }

    /// How long the reconciler's claim lasts: two calls, the last of which begins in that time, and its record.
    pub fn hold(&self) -> Duration {
        self.call_timeout * 2 + self.last_call()
    }
}
