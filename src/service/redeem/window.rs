//! The time in which a redemption may be sent, sent again and polled by the server that began it.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::service::clock::Deadline;

/// Ends at its deadline, or when the server stops. A call that is under way then is waited for, and no other is begun:
/// another server goes on.
pub(super) struct Window<'a> {
    deadline: Deadline,
    closing: &'a CancellationToken,
}

impl<'a> Window<'a> {
    pub(super) fn new(deadline: Deadline, closing: &'a CancellationToken) -> Self {
        Self { deadline, closing }
    }

    /// How long until its deadline, also when the server stops.
    pub(super) fn left(&self) -> Duration {
        self.deadline.left()
    }

    /// Whether its deadline has passed, also when the server stops.
    pub(super) fn is_too_late(&self) -> bool {
        self.deadline.has_passed()
    }

    /// Whether no more calls are begun.
    pub(super) fn has_passed(&self) -> bool {
        self.closing.is_cancelled() || self.deadline.has_passed()
    }

    /// Waits for `pause`, and answers whether another call may still be begun then.
    pub(super) async fn pause(&self, pause: Duration) -> bool {
        let paused = self.closing.run_until_cancelled(self.deadline.pause(pause)).await;
        paused.unwrap_or(false)
    }
}
