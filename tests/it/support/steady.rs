//! A well-behaved client beside an attack: it takes an account and gives it back, again and again, and counts how often
//! that fails.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::world::{Clients, lease};

/// The pause between two of its rounds.
const PAUSE: Duration = Duration::from_millis(20);
/// The fewest rounds that tell anything.
const LEAST: usize = 20;

/// The client, at work.
pub(crate) struct Steady {
    stop: CancellationToken,
    work: JoinHandle<(usize, Vec<tonic::Status>)>,
}

impl Steady {
    /// Begins. Its pool must have an account that is its own.
    pub(crate) fn begin(clients: &Clients) -> Self {
        let (stop, mut clients) = (CancellationToken::new(), clients.clone());
        let stopped = stop.clone();
        let work = tokio::spawn(async move {
            let (mut rounds, mut failed) = (0, Vec::new());
            while rounds < LEAST || !stopped.is_cancelled() {
                rounds += 1;
                let round = async {
                    let held = lease(&clients.acquire(|_| {}).await?);
                    clients.release(&held).await
                };
                failed.extend(round.await.err());
                tokio::time::sleep(PAUSE).await;
            }
            (rounds, failed)
        });
        Self { stop, work }
    }

    /// Ends, and asserts that 99 of 100 rounds were served.
    pub(crate) async fn was_served(self) {
        self.stop.cancel();
        let (rounds, failed) = self.work.await.unwrap();
        assert!(failed.len() * 100 <= rounds, "{} of {rounds} failed: {failed:#?}", failed.len());
    }
}
