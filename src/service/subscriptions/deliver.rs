//! The background task of deliveries: claims subscriptions that nobody delivers, and has each delivered.
//!
//! Any server may claim any. A claim holds for as long as its server beats; that may be judged wrongly, and then two servers
//! deliver the same for a moment. Receivers drop what comes twice, by its id, and only the newer one notes progress.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    sync::{Semaphore, watch},
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;

pub use super::deliverer::Tools;
use super::{
    deliverer::{Deliverer, Status},
    sending::Sender,
};
use crate::{
    domain::id::{PoolId, SubscriptionId},
    provider::receiver::Receivers,
    secret::SecretKeys,
    service::{Error, pools::Pools},
    store::delivery::{Claim, Claimed},
};

/// How often a server sees what it delivers still, and what nobody does.
const INTERVAL: Duration = Duration::from_millis(500);
/// How many subscriptions a server claims at once: so several that start share them.
const MAX_CLAIMED_AT_ONCE: i64 = 8;
/// How many it delivers.
const MAX_CLAIMED: usize = 512;
/// How many POSTs of a server are under way.
const MAX_UNDER_WAY: usize = 64;
/// How long one waits that cannot be sent by this server.
const UNUSABLE: Duration = Duration::from_secs(5);
/// How long deliverers may take to note their progress when the server stops.
const END: Duration = Duration::from_millis(300);
/// How often dead letters are counted.
const COUNT: Duration = Duration::from_secs(15);

/// The deliveries of a server.
#[derive(Debug)]
pub struct Deliveries {
    tools: Tools,
    pools: Pools,
    secret: SecretKeys,
    receivers: Receivers,
    permits: Arc<Semaphore>,
    running: HashMap<(PoolId, SubscriptionId), Running>,
}

/// A subscription that is delivered.
#[derive(Debug)]
struct Running {
    claim: i64,
    stop: CancellationToken,
    /// Tells whether it has deliveries that are tried again.
    living: watch::Sender<bool>,
    status: Arc<watch::Sender<Status>>,
    task: JoinHandle<()>,
}

impl Deliveries {
    /// Delivers what `tools` tell.
    pub fn new(tools: Tools, pools: Pools, secret: SecretKeys, receivers: Receivers) -> Self {
        let permits = Arc::new(Semaphore::new(MAX_UNDER_WAY));
        Self { tools, pools, secret, receivers, permits, running: HashMap::new() }
    }

    /// Delivers until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut counted: Option<Instant> = None;
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            if let Err(error) = self.follow().await {
                tracing::debug!(%error, "it cannot be read which subscriptions are to be delivered");
            }
            self.tell_metrics();
            if counted.is_none_or(|at| at.elapsed() >= COUNT) {
                counted = Some(Instant::now());
                if let Ok(dead) = self.tools.store.count_dead_deliveries().await {
                    metrics::gauge!("holdfast_deliveries_dead").set(dead as f64);
                }
            }
        }
        self.stop().await;
    }

    /// Ends what is not this server's any more, and begins what nobody delivers.
    async fn follow(&mut self) -> Result<(), Error> {
        self.running.retain(|_, running| !running.task.is_finished());
        let claims = self.tools.store.claims().await?;
        let mut left: Vec<Claim> = Vec::new();
        let mut still = HashMap::new();
        for (claim, has_living) in claims {
            let key = (claim.pool_id.clone(), claim.subscription_id.clone());
            match self.running.remove_entry(&key) {
                Some((key, running)) if running.claim == claim.number => {
                    running.living.send_replace(has_living);
                    still.insert(key, running);
                }
                Some((_, running)) => running.stop.cancel(),
                // Its deliverer has ended, because of the database or so.
                None => left.push(claim),
            }
        }
        let not_mine = std::mem::replace(&mut self.running, still);
        not_mine.into_values().for_each(|running| running.stop.cancel());
        if self.running.len() < MAX_CLAIMED {
            left.extend(self.tools.store.free_subscriptions(MAX_CLAIMED_AT_ONCE).await?);
        }
        for claim in left {
            // One that cannot be begun holds up no other.
            if let Err(error) = self.claim(&claim).await {
                let Claim { pool_id, subscription_id, .. } = claim;
                tracing::warn!(%pool_id, %subscription_id, %error, "a subscription cannot be claimed now");
            }
        }
        Ok(())
    }

    async fn claim(&mut self, claim: &Claim) -> Result<(), Error> {
        match self.tools.store.claim_subscription(claim).await? {
            Some(claimed) => self.begin(claimed).await,
            None => Ok(()),
        }
    }

    async fn begin(&mut self, claimed: Claimed) -> Result<(), Error> {
        let Claim { pool_id, subscription_id, number } = claimed.claim.clone();
        let currency = self.pools.settings(&pool_id).await?.currency;
        let (stop, (living, told_living)) = (CancellationToken::new(), watch::channel(false));
        let status = Arc::new(watch::channel(Status::default()).0);
        let sender =
            Sender::new(&claimed, &self.secret, self.receivers.clone(), Arc::clone(&self.permits));
        let task = match sender {
            Ok(sender) => {
                let tools = self.tools.clone();
                let deliverer = Deliverer::new(
                    tools,
                    claimed,
                    sender,
                    currency,
                    told_living,
                    Arc::clone(&status),
                );
                tokio::spawn(Box::pin(deliverer.run(stop.clone())))
            }
            Err(error) => {
                tracing::warn!(%pool_id, %subscription_id, %error, "a subscription cannot be delivered now");
                tokio::spawn(sleep(UNUSABLE))
            }
        };
        let running = Running { claim: number, stop, living, status, task };
        // Where this server's claim had run out before it claimed anew.
        if let Some(before) = self.running.insert((pool_id, subscription_id), running) {
            before.stop.cancel();
        }
        Ok(())
    }

    fn tell_metrics(&self) {
        let all = self.running.values().map(|running| *running.status.borrow());
        let (mut oldest, mut failing) = (Duration::ZERO, 0.0);
        for status in all {
            oldest = oldest.max(status.oldest.map(|since| since.elapsed()).unwrap_or_default());
            failing += f64::from(u8::from(status.is_failing));
        }
        metrics::gauge!("holdfast_delivery_backlog_seconds").set(oldest.as_secs_f64());
        metrics::gauge!("holdfast_receivers_failing").set(failing);
    }

    /// Lets other servers go on at once.
    async fn stop(self) {
        let end = Instant::now() + END;
        for running in self.running.values() {
            running.stop.cancel();
        }
        for running in self.running.into_values() {
            let _ = timeout_at(end, running.task).await;
        }
        if let Err(error) = self.tools.store.release_claims().await {
            tracing::debug!(%error, "other servers deliver a little later");
        }
    }
}
