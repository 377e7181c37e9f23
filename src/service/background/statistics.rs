//! Table statistics: has tables counted that have grown, so that statements are planned for their size.
//!
//! Postgres keeps a statement's plan until its tables are counted again. Of a table that was nearly empty then
//! it reads all rows of the pool, where it should look up each by its key. Autovacuum counts again a minute
//! later at best, and a pool is filled in seconds.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::store::Store;

/// How often it is checked whether tables have grown.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long it is left to autovacuum when counting was no use.
const PAUSE: Duration = Duration::from_secs(60);

/// Polls until `stop`. Several servers may do so at once.
pub async fn run(store: Store, stop: CancellationToken) {
    if stop.run_until_cancelled(may_count(&store)).await == Some(false) {
        // A loop that ends is taken for one that broke.
        stop.cancelled().await;
        return;
    }
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = None;
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        keep_up(&store, &mut last).await;
    }
}

/// Whether this server counts at all. A role that does not own the tables may not: that is logged once, here.
async fn may_count(store: &Store) -> bool {
    // A database that does not answer now is no reason never to count.
    let may = store.may_count_rows().await.unwrap_or(true);
    if !may {
        tracing::warn!(
            "the database's role does not own the tables, so this server cannot run ANALYZE when they grow: keep \
             autovacuum on, and run ANALYZE as their owner after a large import"
        );
    }
    may
}

/// Has tables counted that have grown. `last` is how many pages they had when that was tried, and when.
async fn keep_up(store: &Store, last: &mut Option<(i64, Instant)>) {
    let tables = match store.table_statistics().await {
        Ok(tables) => tables,
        Err(error) => {
            tracing::debug!(%error, "it could not be seen whether tables have grown");
            return;
        }
    };
    let was_no_use =
        last.is_some_and(|(pages, at)| pages == tables.known_pages && at.elapsed() < PAUSE);
    if !tables.grown || was_no_use {
        return;
    }
    *last = Some((tables.known_pages, Instant::now()));
    if let Err(error) = store.count_rows().await {
        tracing::warn!(%error, "tables could not be counted: statements may be planned for smaller ones");
    }
}
