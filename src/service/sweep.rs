//! The sweeper: ends leases whose time has passed, and days that have nothing left to take.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, sleep};
use tokio_util::sync::CancellationToken;

pub(super) use super::expiry::log_expired;
use super::{acquire::Acquire, days::advance_days, poll::PollWindow, pools::Pools};
use crate::{
    domain::{id::PoolId, lease::MAX_LEASE},
    store::{Store, scan::Freed},
};

/// Who ends expired leases, in the accounts' events.
const ACTOR: &str = "sweeper";
/// The most leases that one statement ends.
const BATCH: i64 = 500;
/// How often days are polled for that a change of their plan has ended.
const PLANS: Duration = Duration::from_secs(10);
/// How often they are polled for in every plan. A day may have nothing to take from its beginning, or be
/// filled by a late credit while somebody else has the account. Reads every account that has days.
const ALL_PLANS: Duration = Duration::from_secs(60 * 60);

/// Polls every `interval`, until `stop`. Several servers may do so at once: each lease is ended by
/// one of them. Leases do not wait for days, which take longer to read.
pub async fn run(
    store: Store,
    pools: Pools,
    acquire: Acquire,
    interval: Duration,
    stop: CancellationToken,
) {
    tokio::join!(
        end_leases(&store, &pools, &acquire, interval, &stop),
        end_days(&store, &acquire, &stop)
    );
}

async fn end_leases(
    store: &Store,
    pools: &Pools,
    acquire: &Acquire,
    interval: Duration,
    stop: &CancellationToken,
) {
    let mut window = PollWindow::default();
    let mut pause = Duration::ZERO;
    while stop.run_until_cancelled(sleep(pause)).await.is_some() {
        let poll = window.begin();
        let due = store.pools_with_expired_leases(poll.within).await;
        let mut complete = due.is_ok();
        let due = match due {
            Ok(due) => {
                pause = poll.pause(interval);
                due
            }
            Err(error) => {
                tracing::warn!(%error, "cannot read which pools have expired leases; trying those that are cached");
                pause = interval;
                pools.cached_ids()
            }
        };
        for pool_id in due {
            complete &= sweep(store, acquire, &pool_id, poll.within).await;
        }
        window.end(&poll, complete);
    }
}

/// Ends days that have nothing left to take. Often these are those of accounts that were under a lease when their
/// plan was changed, and now and then all.
async fn end_days(store: &Store, acquire: &Acquire, stop: &CancellationToken) {
    let mut ticks = tokio::time::interval(PLANS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut checked_all: Option<Instant> = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let all = checked_all.is_none_or(|at| at.elapsed() >= ALL_PLANS);
        if all {
            checked_all = Some(Instant::now());
        }
        end_days_of((!all).then_some(MAX_LEASE + PLANS * 2), store, acquire).await;
    }
}

/// Of the plans that were changed within this time, or of all.
async fn end_days_of(changed_within: Option<Duration>, store: &Store, acquire: &Acquire) {
    match store.plans_with_days(changed_within).await {
        Ok(plans) => {
            for (pool_id, plan_id) in plans {
                if advance_days(store, &pool_id, &plan_id, ACTOR).await {
                    acquire.changed(&pool_id);
                }
            }
        }
        Err(error) => tracing::warn!(%error, "cannot read which plans have days"),
    }
}

/// Ends a pool's leases whose time passed `within` this time, or at any time. False when they could not be ended.
async fn sweep(
    store: &Store,
    acquire: &Acquire,
    pool_id: &PoolId,
    within: Option<Duration>,
) -> bool {
    loop {
        match store.expire(pool_id, within, BATCH, ACTOR).await {
            Ok(ended) => {
                for account in &ended.rows {
                    log_expired(account);
                    acquire.wake(pool_id, Freed::of(account));
                }
                if !ended.may_be_more {
                    return true;
                }
            }
            Err(error) => {
                tracing::warn!(%pool_id, %error, "expired leases could not be ended; trying again");
                return false;
            }
        }
    }
}
