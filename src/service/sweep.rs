//! The sweeper: ends leases whose time has passed, and days that have nothing left to take.

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
/// How often they are looked for in every plan: a day may have nothing to take from its beginning, or be
/// filled by a late credit while somebody else has the account. Reads every account that has days.
const ALL_PLANS: Duration = Duration::from_secs(60 * 60);

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
    let mut looked_at_plans = None;
    let mut looked_at_all_plans = None;
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
        if is_time(&mut looked_at_all_plans, ALL_PLANS) {
            looked_at_plans = looked_at_all_plans;
            end_days(&store, None).await;
        } else if is_time(&mut looked_at_plans, PLANS) {
            end_days(&store, Some(MAX_LEASE + PLANS * 2)).await;
        }
    }
}

/// Whether the last time was `every` ago, or there was none; it is now then.
fn is_time(last: &mut Option<Instant>, every: Duration) -> bool {
    let is_time = last.is_none_or(|last| last.elapsed() >= every);
    if is_time {
        *last = Some(Instant::now());
    }
    is_time
}

/// Ends days that have nothing left to take: of accounts that were under a lease when their plan was
/// changed, or of all.
async fn end_days(store: &Store, changed_within: Option<Duration>) {
    match store.plans_with_days(changed_within).await {
        Ok(plans) => {
            for (pool_id, plan_id) in plans {
                advance_days(store, &pool_id, &plan_id, ACTOR).await;
            }
        }
        Err(error) => tracing::warn!(%error, "cannot read which plans have days"),
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
