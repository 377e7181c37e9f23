//! Patience: how long, and at which pauses, a statement is tried again.

use std::time::Duration;

use rand::RngExt as _;
use tokio::time::{Instant, sleep};

use super::pg::error::{Fault, fault};

/// How long a statement that failed for want of a database is tried again, from when its last caller
/// queued.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// A pause that doubles from about 5 ms to about 300 ms, less a random part. So statements that met once do not
/// meet again.
pub(super) fn pause(tries: u32) -> Duration {
    let most_ms = 10 * 2u64.pow(tries.min(5));
    Duration::from_millis(rand::rng().random_range(most_ms / 4..=most_ms))
}

/// Reads, again while there is no database, for as long as a lane's callers wait for one.
pub(super) async fn read_patiently<T, F>(mut read: impl FnMut() -> F) -> Result<T, sqlx::Error>
where
    F: Future<Output = Result<T, sqlx::Error>>,
{
    let until = Instant::now() + PATIENCE;
    let mut tries = 0;
    loop {
        match read().await {
            Err(error)
                if fault(&error) == Fault::Unavailable
                    && (tries == 0 || Instant::now() < until) =>
            {
                tries += 1;
                sleep(pause(tries)).await;
            }
            answer => return answer,
        }
    }
}
