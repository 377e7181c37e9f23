//! The reconciler: settles redemptions whose outcome is not known.
//!
//! It looks each up at the provider by its key. A key that is not found is not proof that nothing
//! happened, so the same bytes are sent again under the same key while the provider may still begin
//! them; after that the key is cancelled, which makes sure that nothing can happen any more. It
//! looks on until it is settled; a person may close it meanwhile, and has to when its code cannot be
//! read. Age alone never makes a failure.
//!
//! Which redemptions are due stands in their rows, so it does not matter which server looks.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use rand::RngExt as _;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::{
    Error,
    pools::Pools,
    redeem::{RedeemLimits, code_context, rfc3339},
    settle::Settler,
};
use crate::{
    domain::{
        id::PoolId,
        money::Money,
        redemption::{Ask, Failure, Rung, Step, next_rung, reason},
    },
    provider::{Call, Doubt, Provider, classify},
    secret::SecretKey,
    store::{
        Store,
        outcome::Next,
        redemption::{DueCheck, Redemption},
    },
};

/// Who settles, in the accounts' events.
const ACTOR: &str = "reconciler";
/// The most redemptions that are taken, and looked at, at once.
const BATCH: usize = 32;

/// The reconciler of one server.
#[derive(Clone)]
pub struct Reconciler {
    store: Store,
    pools: Pools,
    provider: Provider,
    secret: Arc<SecretKey>,
    settler: Settler,
    limits: RedeemLimits,
}

impl Reconciler {
    /// Settles what is in doubt in `store` by asking `provider`.
    pub fn new(
        store: Store,
        pools: Pools,
        provider: Provider,
        secret: Arc<SecretKey>,
        settler: Settler,
        limits: RedeemLimits,
    ) -> Self {
        Self { store, pools, provider, secret, settler, limits }
    }

    /// Looks every `interval`, until `stop`.
    pub async fn run(self, interval: Duration, stop: CancellationToken) {
        let this = Arc::new(self);
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let stopped = stop.cancelled();
        tokio::pin!(stopped);
        loop {
            tokio::select! {
                () = &mut stopped => return,
                _ = ticks.tick() => {}
            }
            let due = match this.store.pools_with_due_checks().await {
                Ok(due) => due,
                Err(error) => {
                    tracing::warn!(%error, "cannot read which pools have redemptions to look at; trying those that are known");
                    this.pools.known_ids()
                }
            };
            for pool_id in due {
                // A full claim: there is more.
                while this.look_at_pool(&pool_id).await == BATCH && !stop.is_cancelled() {}
                if stop.is_cancelled() {
                    return;
                }
            }
        }
    }

    /// Looks at what is due in a pool, and answers at how many.
    async fn look_at_pool(self: &Arc<Self>, pool_id: &PoolId) -> usize {
        // Nobody else looks at them meanwhile: a look is at most two calls, and then a record.
        let hold = self.limits.call_timeout * 2 + Duration::from_secs(10);
        let limit = i64::try_from(BATCH).unwrap_or(i64::MAX);
        let claimed = match self.store.claim_checks(pool_id, limit, hold).await {
            Ok(claimed) => claimed,
            Err(error) => {
                tracing::warn!(%pool_id, %error, "redemptions in doubt could not be taken; trying again");
                return 0;
            }
        };
        let count = claimed.len();
        let looks = stream::iter(claimed).for_each_concurrent(BATCH, |due| async move {
            if let Err(error) = self.look(&due).await {
                tracing::error!(
                    %pool_id, redemption_id = %due.redemption.redemption_id, %error,
                    "a redemption in doubt could not be looked at; trying again"
                );
            }
        });
        looks.await;
        count
    }

    async fn look(&self, due: &DueCheck) -> Result<Redemption, Error> {
        let ask = self.ask(due).await?;
        let answer = self.provider.look_up(ask.redemption_id).await;
        let step = classify(&ask, Call::LookUp, Doubt::InDoubt, &answer);
        if step == Step::NotFound {
            self.climb(due, &ask).await
        } else {
            self.record(due, 1, step, false).await
        }
    }

    /// The provider does not know the key.
    async fn climb(&self, due: &DueCheck, ask: &Ask) -> Result<Redemption, Error> {
        let (call, answer) = match next_rung(due.not_found_checks, due.db_now >= due.not_after) {
            Rung::LookUpAgain => return self.record(due, 1, Step::NotFound, true).await,
            Rung::SendAgain => (Call::Send, self.provider.send(ask).await),
            Rung::Cancel => (Call::Cancel, self.provider.cancel(ask.redemption_id).await),
        };
        tracing::info!(
            pool_id = %due.redemption.pool_id, redemption_id = %ask.redemption_id, ?call,
            "the provider does not know the key of a redemption in doubt"
        );
        let step = classify(ask, call, Doubt::InDoubt, &answer);
        self.record(due, 2, step, true).await
    }

    /// `not_found`: the key was not known at this look, whatever was done about it then.
    async fn record(
        &self,
        due: &DueCheck,
        calls: i32,
        step: Step,
        not_found: bool,
    ) -> Result<Redemption, Error> {
        let (answer, after) = match step {
            Step::Settle(verdict) => {
                return self.settler.conclude(&due.redemption, verdict, calls, ACTOR).await;
            }
            Step::SendAgain { give_up, after } => (give_up.message, after),
            Step::LookUp { after, answer } => (answer, after),
            Step::NotFound => ("the provider does not know the key".to_owned(), None),
            Step::InDoubt { answer } => (answer, None),
        };
        let after = after.unwrap_or_else(|| backoff(due.checks));
        let next = Next::Check { after, not_found };
        self.settler.defer(&due.redemption, answer, calls, next).await
    }

    /// The very bytes that were sent at first.
    async fn ask(&self, due: &DueCheck) -> Result<Ask, Error> {
        let redemption = &due.redemption;
        let context = code_context(&redemption.pool_id, redemption.redemption_id);
        let code = match self.secret.decrypt(&context, &due.code_ciphertext) {
            Ok(code) => code,
            Err(_) => return Err(self.unreadable(due).await),
        };
        let currency = self.pools.settings(&redemption.pool_id).await?.currency;
        Ok(Ask {
            redemption_id: redemption.redemption_id,
            code,
            account_id: redemption.account_id.clone(),
            expected: redemption
                .expected_minor
                .map(|amount_minor| Money { amount_minor, currency }),
            currency,
            not_after: rfc3339(due.not_after)?,
        })
    }

    /// A code that cannot be read cannot be sent again, and asking on would never end: a person has
    /// to look.
    async fn unreadable(&self, due: &DueCheck) -> Error {
        let failure = Failure {
            reason: reason::UNRESOLVED.to_owned(),
            message: "the stored code cannot be decrypted".to_owned(),
            code_spent: false,
        };
        let next = Next::Review { failure, amount: None, provider_ref: None };
        let answer = "the stored code cannot be decrypted".to_owned();
        match self.settler.defer(&due.redemption, answer, 0, next).await {
            Ok(_) => Error::Internal("a stored code cannot be decrypted"),
            Err(error) => error,
        }
    }
}

/// 500 ms after the first look, then 1 s, 2 s … at most a minute; of each, a random part is left out.
fn backoff(checks: i32) -> Duration {
    let doublings = u32::try_from(checks - 1).unwrap_or(0).min(10);
    let most =
        Duration::from_millis(500).saturating_mul(1 << doublings).min(Duration::from_secs(60));
    most.mul_f64(rand::rng().random_range(0.5..1.0))
}
