//! Joining: callers wait for a redemption that is being sent already, here or by another server.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep},
};

use super::{Inner, window::Window};
use crate::{
    domain::{
        id::{PoolId, RedemptionId},
        redemption::{Redemption, RedemptionState},
    },
    service::Error,
    store::StoreError,
};

/// How often a redemption that another server sends is read, while a caller waits for it.
const JOIN_POLL: Duration = Duration::from_millis(100);
/// How long a redemption that is there is tried to be read while there is no database.
const PATIENCE: Duration = Duration::from_secs(60);
/// The redemptions that this server is at work on.
pub(super) type Sends = Mutex<HashMap<RedemptionId, Sending>>;

/// A redemption that this server is at work on, for others.
pub(super) struct Sending {
    finished: watch::Receiver<()>,
    /// Ends the pause before its next poll.
    poll_now: Arc<Notify>,
}

impl Inner {
    /// Lets callers join until the answer is dropped.
    pub(super) fn announce(&self, id: RedemptionId) -> SendInProgress<'_> {
        let (finished, told_finished) = watch::channel(());
        let poll_now = Arc::new(Notify::new());
        let send = Sending { finished: told_finished, poll_now: Arc::clone(&poll_now) };
        self.sends.lock().unwrap_or_else(PoisonError::into_inner).insert(id, send);
        SendInProgress { sends: &self.sends, id, poll_now, _finished: finished }
    }

    /// Ends the pause before the next poll of a redemption that this server sends. False: it does not.
    pub(super) fn poll_now(&self, id: RedemptionId) -> bool {
        let sends = self.sends.lock().unwrap_or_else(PoisonError::into_inner);
        sends.get(&id).inspect(|send| send.poll_now.notify_one()).is_some()
    }

    /// Ends when a redemption that this server sends is sent no longer. `None`: this server does not send it.
    fn finished(&self, id: RedemptionId) -> Option<watch::Receiver<()>> {
        let sends = self.sends.lock().unwrap_or_else(PoisonError::into_inner);
        sends.get(&id).map(|send| send.finished.clone())
    }

    /// Waits until the redemption is no longer being sent, here or by another server. A server that stops
    /// waits for what it sends itself, and no longer for what another sends. Then the answer is what is
    /// known of it.
    pub(super) async fn join(&self, mut redemption: Redemption) -> Result<Redemption, Error> {
        let id = redemption.redemption_id;
        let provider = self.providers.pinned(&redemption).await;
        let longest = provider.map_or(PATIENCE, |provider| provider.limits().take_over());
        let deadline = Instant::now() + longest;
        if redemption.state == RedemptionState::Submitted {
            tracing::debug!(pool_id = %redemption.pool_id, redemption_id = %id, "joined");
        }
        while redemption.state == RedemptionState::Submitted && Instant::now() < deadline {
            let read = match self.finished(id) {
                Some(mut finished) => {
                    // Ends with an error when the sender is dropped: then it has finished.
                    let _ = finished.changed().await;
                    Some(self.read(&redemption.pool_id, id).await)
                }
                None => {
                    let next = async {
                        sleep(JOIN_POLL).await;
                        self.read(&redemption.pool_id, id).await
                    };
                    self.stopping.closing.run_until_cancelled(next).await
                }
            };
            match read {
                Some(read) => redemption = read?,
                None => break,
            }
        }
        Ok(redemption)
    }

    /// Reads a redemption that is known to be there, waiting for the database if need be.
    pub(super) async fn read(
        &self,
        pool_id: &PoolId,
        id: RedemptionId,
    ) -> Result<Redemption, Error> {
        let deadline = Instant::now() + PATIENCE;
        let found = loop {
            match self.store.get_redemption(pool_id, id).await {
                Err(StoreError::Unavailable(_)) if Instant::now() < deadline => {
                    sleep(JOIN_POLL).await;
                }
                answered => break answered?,
            }
        };
        found.ok_or_else(|| Error::RedemptionNotFound(pool_id.clone(), id.to_string()))
    }
}

/// A redemption that this server is at work on, until dropped.
pub(super) struct SendInProgress<'a> {
    sends: &'a Sends,
    id: RedemptionId,
    poll_now: Arc<Notify>,
    _finished: watch::Sender<()>,
}

impl SendInProgress<'_> {
    /// Waits for `pause`, or until a poll is to be made at once, and answers whether one may still be made then.
    pub(super) async fn pause(&self, window: &Window<'_>, pause: Duration) -> bool {
        tokio::select! {
            biased;
            in_time = window.pause(pause) => in_time,
            () = self.poll_now.notified() => !window.has_passed(),
        }
    }
}

impl Drop for SendInProgress<'_> {
    fn drop(&mut self) {
        self.sends.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}
