//! The orderly stop of a server: it says so, goes on for a moment, finishes what it has, and ends in bounded
//! time.

use std::time::Duration;

use tokio::time::{sleep, timeout};
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

/// How long each step may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Health says NOT_SERVING and calls are still taken, so that balancers choose other servers first.
    pub drain_delay: Duration,
    /// Then what is under way may take this long to finish.
    pub timeout: Duration,
}

impl Shutdown {
    /// Waits until a stop is wanted, and takes the server through the steps. `serving` ends when the
    /// last connection is closed. True when all work was finished in time.
    pub async fn run(
        &self,
        patience: Patience,
        health: &Health,
        calls: &Admission,
        tasks: &TaskTracker,
        serving: impl Future,
    ) -> bool {
        self.wanted.cancelled().await;
        tracing::info!(drain_delay = ?patience.drain_delay, "stopping: health says NOT_SERVING");
        health.drain().await;
        sleep(patience.drain_delay).await;
        self.closing.cancel();
        tasks.close();
        let finished = async {
            calls.all_answered().await;
            tasks.wait().await;
        };
        let in_time = timeout(patience.timeout, finished).await.is_ok();
        // A client that does not answer the farewell, or never sent a byte, is not waited for.
        let _ = timeout(CONNECTION_GRACE, serving).await;
        if in_time {
            tracing::info!("stopped: all work in progress was finished");
        } else {
            tracing::warn!(
                tasks = tasks.len(),
                "stopped with work in progress: the reconciler settles the redemptions in it"
            );
        }
        in_time
    }
}
