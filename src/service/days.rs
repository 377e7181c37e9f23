//! Day ends: the days of plans that have nothing left to take.

use crate::{
    domain::id::{PlanId, PoolId},
    store::Store,
};

/// The most accounts that one statement lets go on to their next day.
const ADVANCE_AT_ONCE: i64 = 1000;

/// Lets the free accounts of a plan go on to their next day where this one has nothing left to take.
pub(super) async fn advance_days(store: &Store, pool_id: &PoolId, plan_id: &PlanId, actor: &str) {
    let mut after = String::new();
    loop {
        match store.advance_days(pool_id, plan_id, ADVANCE_AT_ONCE, actor, &after).await {
            Ok((advanced, more_after)) => {
                if advanced > 0 {
                    tracing::info!(%pool_id, %plan_id, advanced, "days ended that had nothing left to take");
                }
                match more_after {
                    Some(account_id) => after = account_id,
                    None => return,
                }
            }
            Err(error) => {
                tracing::warn!(%pool_id, %plan_id, %error, "days could not be ended; the sweeper tries again");
                return;
            }
        }
    }
}
