//! Reopening: accounts that were completed are open again where their plan's target was raised.
//!
//! It is done in the background, a bounded number of accounts at a time. What is left to do is in the database alone: a
//! server that starts looks through every plan that was ever changed, once.

use std::{collections::HashMap, time::Duration};

use time::OffsetDateTime;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{
    domain::id::{PlanId, PoolId},
    store::Store,
};

/// Who reopens accounts, in their events.
const ACTOR: &str = "sweeper";
/// How often plans are polled for that were changed.
const PLANS: Duration = Duration::from_secs(5);
/// How far back a poll reads: servers' polls may be slow, and none must be missed.
const WITHIN: Duration = Duration::from_secs(60 * 60);
/// The most accounts that are read at once.
const AT_ONCE: i64 = 500;

/// Plans, and at which of their changes they were searched to the end.
#[derive(Debug, Default)]
struct Searched {
    done: HashMap<(PoolId, PlanId), OffsetDateTime>,
    pending: HashMap<(PoolId, PlanId), OffsetDateTime>,
}

/// Searches plans that were changed, until `stop`. Several servers may do so at once: each account is reopened by one.
pub(super) async fn run(store: &Store, stop: &CancellationToken) {
    let mut searched = Searched::default();
    let mut has_read_all = false;
    let mut ticks = interval(PLANS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        match store.changed_plans(has_read_all.then_some(WITHIN)).await {
            Ok(plans) => {
                has_read_all = true;
                plans.into_iter().for_each(|plan| searched.note(plan));
            }
            Err(error) => tracing::warn!(%error, "cannot read which plans were changed"),
        }
        let pending: Vec<_> = searched.pending.keys().cloned().collect();
        for plan in pending {
            if stop.is_cancelled() {
                return;
            }
            if search(store, &plan.0, &plan.1, stop).await {
                searched.end(plan);
            }
        }
    }
}

impl Searched {
    fn note(&mut self, (pool_id, plan_id, changed_at): (PoolId, PlanId, OffsetDateTime)) {
        let plan = (pool_id, plan_id);
        if self.done.get(&plan) != Some(&changed_at) {
            self.pending.insert(plan, changed_at);
        }
    }

    fn end(&mut self, plan: (PoolId, PlanId)) {
        if let Some(changed_at) = self.pending.remove(&plan) {
            self.done.insert(plan, changed_at);
        }
    }
}

/// Reopens the accounts of a plan. True where none is left.
async fn search(
    store: &Store,
    pool_id: &PoolId,
    plan_id: &PlanId,
    stop: &CancellationToken,
) -> bool {
    let (mut after, mut is_any_left, mut count) = (String::new(), false, 0);
    loop {
        match store.reopen_completed(pool_id, plan_id, AT_ONCE, ACTOR, &after).await {
            Ok(found) => {
                is_any_left |= found.is_any_left;
                count += found.reopened;
                match found.more_after.filter(|_| !stop.is_cancelled()) {
                    Some(account_id) => after = account_id,
                    None => break,
                }
            }
            Err(error) => {
                tracing::warn!(%pool_id, %plan_id, %error, "completed accounts could not be reopened; trying again");
                return false;
            }
        }
    }
    if count > 0 {
        tracing::info!(%pool_id, %plan_id, count, "completed accounts are open again: their plan wants more");
    }
    !is_any_left && !stop.is_cancelled()
}
