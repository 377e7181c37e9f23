//! Waits for a condition, with a limit and a name, instead of sleeps.

use std::time::{Duration, Instant};

const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Asks `poll` until it has an answer; panics, saying `what` was waited for, when it has none
/// within `limit`.
pub(crate) async fn eventually<T>(
    limit: Duration,
    what: &str,
    mut poll: impl AsyncFnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = poll().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {limit:?} in vain: {what}");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}
