//! The orderly stop of a server: it says so, goes on for a moment, finishes what it has, and ends in bounded
//! time.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{health::Health, rpc::layers::Admission};

/// The steps of a shutdown, as tokens that the parts of the server wait for.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// Somebody wants the server to stop.
    pub wanted: CancellationToken,
    /// Nothing new is begun; those who wait are told so.
    pub closing: CancellationToken,
}

/// How long clients may take to close their connections when all their calls are answered.
const CONNECTION_GRACE: Duration = Duration::from_secs(1);

/// What of the time is kept for what comes after the work in progress: connections, background tasks, the database.
const CLOSING_TIME: Duration = Duration::from_millis(3500);

/// How long a stop may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Health says NOT_SERVING and calls are still taken, so that balancers choose other servers first.
    pub drain_delay: Duration,
    /// All of it, from the signal to the end of the process.
    pub timeout: Duration,
}

impl Patience {
    /// How long after the signal the work in progress is waited for: all the time but a part for what comes after it.
    fn for_work(&self) -> Duration {
        self.timeout - CLOSING_TIME.min(self.timeout / 4)
    }
}

/// How a stop went.
#[derive(Clone, Copy, Debug)]
pub struct Stopped {
    /// All work was finished.
    pub in_time: bool,
    /// When the process is to have ended.
    pub deadline: Instant,
}

impl Shutdown {
    /// Waits until a stop is wanted, and takes the server through the steps. `serving` ends when the
    /// last connection is closed.
    pub async fn run(
        &self,
        patience: Patience,
        health: &Health,
        calls: &Admission,
        tasks: &TaskTracker,
        serving: impl Future,
    ) -> Stopped {
        self.wanted.cancelled().await;
        let asked = Instant::now();
        let deadline = asked + patience.timeout;
        tracing::info!(drain_delay = ?patience.drain_delay, "stopping: health says NOT_SERVING");
        health.drain();
        sleep(patience.drain_delay).await;
        self.closing.cancel();
        tasks.close();
        let finished = async {
            calls.all_answered().await;
            tasks.wait().await;
        };
        let in_time = timeout_at(asked + patience.for_work(), finished).await.is_ok();
        // A client that does not answer the farewell, or never sent a byte, is not waited for.
        let grace = deadline.min(Instant::now() + CONNECTION_GRACE);
        let _ = timeout_at(grace, serving).await;
        if in_time {
            tracing::info!("stopped: all work in progress was finished");
        } else {
            tracing::warn!(
                tasks = tasks.len(),
                "stopped with work in progress: the reconciler settles the redemptions in it"
            );
        }
        Stopped { in_time, deadline }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_work_gets_all_the_time_but_what_closing_needs() {
        let patience = |seconds| Patience {
            drain_delay: Duration::ZERO,
            timeout: Duration::from_secs(seconds),
        };
        assert_eq!(patience(25).for_work(), Duration::from_millis(21_500));
        assert_eq!(patience(4).for_work(), Duration::from_secs(3));
        assert_eq!(patience(0).for_work(), Duration::ZERO);
    }
}
