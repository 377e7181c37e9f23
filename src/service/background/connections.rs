//! Gives connections back to the database that nobody has used for a while: each takes memory here, and more there.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::store::Store;

/// How often it is seen to.
const INTERVAL: Duration = Duration::from_secs(5);
/// A connection that nobody has used for this time is closed. Those used last are used first, so a load that needs few
/// leaves the others alone.
const UNUSED: Duration = Duration::from_secs(30);

/// Closes what is not used until `stop`.
pub async fn run(store: Store, stop: CancellationToken) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        store.close_unused(UNUSED).await;
    }
}
