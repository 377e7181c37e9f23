//! Sees to it that statements are planned for tables as large as they are.
//!
//! Postgres plans a statement by what it last counted, and keeps the plan. Of a table that is empty, or has
//! few rows, it reads all rows that have the pool, where it should look up each by its key; autovacuum
//! counts again a minute later at best, and a pool is filled in seconds.

use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::store::{Store, StoreError};

/// How often it is looked whether tables have grown.
const INTERVAL: Duration = Duration::from_secs(1);

/// Looks until `stop`. Several servers may do so at once.
pub async fn run(store: Store, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut tried_at = 0;
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        if let Err(error) = keep_up(&store, &mut tried_at).await {
            tracing::debug!(%error, "it could not be seen whether tables have grown");
        }
    }
}

/// Has grown tables counted. Where that does not help they are counted again when they are twice as large: a
/// role that does not own them may not count them, and gets a warning each time.
async fn keep_up(store: &Store, tried_at: &mut i64) -> Result<(), StoreError> {
    let bytes = store.grown_bytes().await?;
    if bytes == 0 {
        *tried_at = 0;
    } else if bytes >= tried_at.saturating_mul(2) {
        *tried_at = bytes;
        store.analyze().await?;
    }
    Ok(())
}
