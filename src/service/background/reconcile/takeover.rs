//! The look-up of redemptions that a dead server left in progress, before its send window is over.
//!
//! That a server is dead is a judgement, and may be wrong (see [`super::super::heartbeat`]). So nothing is done
//! that could hurt a sender that lives:
//!
//! - The provider is only asked what became of the key. Nothing is sent again or cancelled, and nothing is left
//!   to a person: the reconciler does that, from `next_check_at` on.
//! - The row stays as its sender knows it: `SUBMITTED`, no check counted, `next_check_at` as begin wrote it. The
//!   sender may defer it, may record a failure that it infers (nobody else has sent anything), or settle it.
//! - Only an outcome is recorded that the provider tells by the key. The sender would be told the same. The
//!   second one finds the redemption settled.
//!
//! A claim in the row (`early_check_at`) lets one server look up, and not all.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{ACTOR, AT_ONCE, BATCH, Reconciler};
use crate::{
    domain::{
        id::PoolId,
        redemption::{EarlyCheck, Step},
    },
    provider::Doubt,
    service::{Error, background::heartbeat::BEAT, poll::pause_after, redeem::send::question},
};

/// The poll interval while no server is known to be dead. There may be redemptions of servers whose row is gone.
const IDLE: Duration = Duration::from_secs(30);
/// The shortest and the longest hold of a claim: the time until the next look-up. In between it is half the
/// redemption's age.
const HOLDS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// Looks up what dead servers left in flight. See the module.
pub struct Takeover {
    reconciler: Reconciler,
    dead: watch::Receiver<Vec<Uuid>>,
    /// As many as may be looked up at once.
    at_once: Arc<Semaphore>,
}

impl Takeover {
    /// For the servers that `dead` tells of, by the means of `reconciler`.
    pub fn new(reconciler: Reconciler, dead: watch::Receiver<Vec<Uuid>>) -> Self {
        Self { reconciler, dead, at_once: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Polls until `stop`: at once when a server is judged dead, and then as often as it beats, less often
    /// where polls are slow.
    pub async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let begun = Instant::now();
            let dead = self.dead.borrow_and_update().clone();
            let pools = self.pools(&dead).await;
            let took = begun.elapsed();
            for (pool_id, servers) in pools {
                if stop.run_until_cancelled(self.check_pool(&pool_id, &servers)).await.is_none() {
                    return;
                }
            }
            let pause = if dead.is_empty() { IDLE } else { pause_after(took, BEAT) };
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(pause) => {}
                changed = self.dead.changed() => {
                    // The beats have ended, at the end of this server.
                    if changed.is_err() {
                        stop.cancelled().await;
                    }
                }
            }
        }
    }

    /// The pools with something to look up, each with the servers that left it.
    async fn pools(&self, dead: &[Uuid]) -> HashMap<PoolId, Vec<Uuid>> {
        let mut pools: HashMap<PoolId, Vec<Uuid>> = HashMap::new();
        match self.reconciler.store.pools_of_dead_servers(dead).await {
            Ok(found) => {
                for (pool_id, server_id) in found {
                    pools.entry(pool_id).or_default().push(server_id);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot read which pools have redemptions of dead servers; trying those that are cached");
                if !dead.is_empty() {
                    let cached = self.reconciler.pools.cached_ids();
                    pools.extend(cached.into_iter().map(|pool_id| (pool_id, dead.to_vec())));
                }
            }
        }
        pools
    }

    /// Whether the pool's provider can be asked what became of a redemption. Otherwise a claim would be in vain.
    async fn can_be_asked(&self, pool_id: &PoolId) -> bool {
        let Reconciler { pools, providers, .. } = &self.reconciler;
        let Ok(pool) = pools.settings(pool_id).await else { return false };
        if !providers.may_be_asked(&pool) {
            return false;
        }
        let provider = providers.of_pool(&pool).await;
        provider.is_ok_and(|provider| provider.limits().provider.question(true).is_some())
    }

    /// Begins to look up all that is due in a pool, as many at once as may be.
    async fn check_pool(&self, pool_id: &PoolId, servers: &[Uuid]) {
        if !self.can_be_asked(pool_id).await {
            return;
        }
        // Never closed.
        while let Ok(first) = Arc::clone(&self.at_once).acquire_owned().await {
            let limit = BATCH.min(1 + self.at_once.available_permits());
            let limit_rows = i64::try_from(limit).unwrap_or(i64::MAX);
            let store = &self.reconciler.store;
            let claimed = match store.claim_early_checks(pool_id, servers, limit_rows, HOLDS).await
            {
                Ok(claimed) => claimed,
                Err(error) => {
                    tracing::warn!(%pool_id, %error, "redemptions of dead servers could not be taken; trying again");
                    return;
                }
            };
            let mut permit = Some(first);
            for early in claimed.rows {
                // There is one: nobody else takes any.
                let permit =
                    permit.take().or_else(|| Arc::clone(&self.at_once).try_acquire_owned().ok());
                tokio::spawn(check(self.reconciler.clone(), early, permit));
            }
            if !claimed.may_be_more {
                return;
            }
        }
    }
}

async fn check(reconciler: Reconciler, early: EarlyCheck, _permit: Option<OwnedSemaphorePermit>) {
    let redemption = &early.redemption;
    let outcome = match reconciler.check_early(&early).await {
        Ok(true) => {
            tracing::info!(
                pool_id = %redemption.pool_id, redemption_id = %redemption.redemption_id,
                server_id = %early.server_id,
                "looked up for a server that is dead: the outcome is known"
            );
            "settled"
        }
        Ok(false) => "not_yet",
        Err(error) => {
            tracing::error!(
                pool_id = %redemption.pool_id, redemption_id = %redemption.redemption_id, %error,
                "a redemption of a dead server could not be looked up; trying again"
            );
            "failed"
        }
    };
    metrics::counter!("holdfast_early_checks_total", "outcome" => outcome).increment(1);
}

impl Reconciler {
    /// Looks a redemption up once, and records its outcome if the provider tells one. True when it does.
    pub(in crate::service) async fn check_early(&self, early: &EarlyCheck) -> Result<bool, Error> {
        let EarlyCheck { redemption, code_ciphertext, not_after, hold, .. } = early;
        // One whose code cannot be read is a person's, when its time has come.
        let Some(ask) = self.ask(redemption, code_ciphertext, *not_after).await? else {
            return Ok(false);
        };
        // When the hold is over another server may ask.
        let provider = self.providers.pinned(redemption).await?;
        let Some(question) = question(&provider, &ask) else { return Ok(false) };
        let ask = provider.ask(question, Doubt::InDoubt, &ask, *hold);
        let Ok(step) = timeout(*hold, ask).await else {
            return Ok(false);
        };
        match step {
            Step::Settle(verdict) => self.settler.conclude_early(redemption, verdict, ACTOR).await,
            _ => Ok(false),
        }
    }
}
