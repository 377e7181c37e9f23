//! The sweeper: ends leases whose time has passed, and days that have nothing left to take, and reopens accounts whose
//! plan wants more.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, sleep};
use tokio_util::sync::CancellationToken;

pub(super) use super::expiry::log_expired;
use super::{days::advance_days, poll::PollWindow, pools::Pools, reopening};
use crate::{
    domain::{id::PoolId, lease::MAX_LEASE},
    store::{Store, ready_set::OldChanges},
};

/// Who ends expired leases, in the accounts' events.
const ACTOR: &str = "sweeper";
/// How often the table of changes is trimmed.
const CHANGES: Duration = Duration::from_secs(10);
/// The most leases that one statement ends.
const BATCH: i64 = 500;
/// How often days are polled for that a change of their plan has ended.
const PLANS: Duration = Duration::from_secs(10);
/// How often they are polled for in every plan. A day may have nothing to take from its beginning, or be
/// filled by a late credit while somebody else has the account. Reads every account that has days.
const ALL_PLANS: Duration = Duration::from_secs(60 * 60);

/// Polls every `interval`, until `stop`. Several servers may do so at once: each lease is ended by
/// one of them. Leases do not wait for days, which take longer to read.
pub async fn run(store: Store, pools: Pools, interval: Duration, stop: CancellationToken) {
    tokio::join!(
        end_leases(&store, &pools, interval, &stop),
        end_days(&store, &stop),
        reopening::run(&store, &stop),
        forget_changes(&store, &pools, &stop)
    );
}

async fn end_leases(store: &Store, pools: &Pools, interval: Duration, stop: &CancellationToken) {
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
            complete &= sweep(store, &pool_id, poll.within).await;
        }
        window.end(&poll, complete);
    }
}

/// Ends days that have nothing left to take. Often these are those of accounts that were under a lease when their
/// plan was changed, and now and then all.
async fn end_days(store: &Store, stop: &CancellationToken) {
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
        end_days_of((!all).then_some(MAX_LEASE + PLANS * 2), store).await;
    }
}

/// Of the plans that were changed within this time, or of all.
async fn end_days_of(changed_within: Option<Duration>, store: &Store) {
    match store.plans_with_days(changed_within).await {
        Ok(plans) => {
            for (pool_id, plan_id) in plans {
                advance_days(store, &pool_id, &plan_id, ACTOR).await;
            }
        }
        Err(error) => tracing::warn!(%error, "cannot read which plans have days"),
    }
}

/// Removes what the table of changes has of the pools that this server uses, once every server has read it.
async fn forget_changes(store: &Store, pools: &Pools, stop: &CancellationToken) {
    let mut old = OldChanges::default();
    while stop.run_until_cancelled(sleep(CHANGES)).await.is_some() {
        if let Err(error) = store.forget_changes(&pools.cached_ids(), &mut old).await {
            tracing::warn!(%error, "what servers have read of changed accounts could not be removed");
        }
    }
}

/// Ends a pool's leases whose time passed `within` this time, or at any time. False when they could not be ended.
async fn sweep(store: &Store, pool_id: &PoolId, within: Option<Duration>) -> bool {
    loop {
        match store.expire(pool_id, within, BATCH, ACTOR).await {
            Ok(ended) => {
                ended.rows.iter().for_each(log_expired);
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
