//! The sweeper: ends leases whose time has passed.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::{acquire::Acquire, plans::advance_days, pools::Pools};
use crate::{
    domain::{id::PoolId, lease::MAX_LEASE},
    store::{Store, account::Account},
};

/// Who ends expired leases, in the accounts' events.
const ACTOR: &str = "sweeper";
/// The most leases that one statement ends.
const BATCH: i64 = 500;
/// How often days are looked for that a change of their plan has ended.
const PLANS: Duration = Duration::from_secs(10);

/// Looks every `interval`, until `stop`. Several servers may do so at once: each lease is ended by
/// one of them.
pub async fn run(
    store: Store,
    pools: Pools,
    acquire: Acquire,
    interval: Duration,
    stop: CancellationToken,
) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut plans_looked_at = None;
    let stopped = stop.cancelled();
    tokio::pin!(stopped);
    loop {
        tokio::select! {
            () = &mut stopped => return,
            _ = ticks.tick() => {}
        }
        let due = match store.pools_with_expired_leases().await {
            Ok(due) => due,
            Err(error) => {
                tracing::warn!(%error, "cannot read which pools have expired leases; trying those that are known");
                pools.known_ids()
            }
        };
        for pool_id in due {
            sweep(&store, &acquire, &pool_id).await;
        }
        if plans_looked_at.is_none_or(|at: Instant| at.elapsed() >= PLANS) {
            plans_looked_at = Some(Instant::now());
            end_days(&store).await;
        }
    }
}

/// Ends the days of accounts that were under a lease when their plan was changed.
async fn end_days(store: &Store) {
    match store.plans_changed_lately(MAX_LEASE + PLANS * 2).await {
        Ok(plans) => {
            for (pool_id, plan_id) in plans {
                advance_days(store, &pool_id, &plan_id, ACTOR).await;
            }
        }
        Err(error) => tracing::warn!(%error, "cannot read which plans were changed lately"),
    }
}

async fn sweep(store: &Store, acquire: &Acquire, pool_id: &PoolId) {
    loop {
        match store.expire(pool_id, BATCH, ACTOR).await {
            Ok(ended) => {
                ended.iter().for_each(log_expired);
                if !ended.is_empty() {
                    acquire.wake(pool_id);
                }
                if ended.len() < usize::try_from(BATCH).unwrap_or(usize::MAX) {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%pool_id, %error, "expired leases could not be ended; trying again");
                return;
            }
        }
    }
}

pub(super) fn log_expired(account: &Account) {
    metrics::counter!("holdfast_leases_expired_total").increment(1);
    tracing::warn!(
        pool_id = %account.pool_id,
        account_id = %account.account_id,
        fencing_token = account.token.0,
        status = account.status.as_str(),
        "expired: the lease's time passed, and the account has the status it had before"
    );
}
