//! Redemptions, as people look at them, and close those that nothing else can.

use super::{
    Error,
    pools::{Pools, check_currencies},
    settle::Settler,
};
use crate::{
    domain::{
        id::{PoolId, RedemptionId, RequestId},
        money::Money,
        redemption::{Failure, RedemptionState},
    },
    store::{
        Store,
        outcome::Outcome,
        pool::Pool,
        redemption::{Redemption, RedemptionFilter, Resolution},
    },
};

/// The reason of a failure that a person found out.
const RESOLVED_AS_FAILED: &str = "RESOLVED_AS_FAILED";

/// A person's word about a redemption.
#[derive(Clone, Debug)]
pub struct ResolveCommand {
    /// The redemption's pool.
    pub pool_id: PoolId,
    /// The redemption.
    pub redemption_id: RedemptionId,
    /// What became of it.
    pub outcome: ResolvedOutcome,
    /// Who says so, and why.
    pub resolution: Resolution,
}

/// See [`ResolveCommand`].
#[derive(Clone, Debug)]
pub enum ResolvedOutcome {
    /// Credited this much.
    Succeeded {
        /// What was credited.
        amount: Money,
        /// The provider's own name for it, if it is known.
        provider_ref: Option<String>,
    },
    /// Not credited.
    Failed {
        /// Whether the code is spent.
        code_spent: bool,
    },
}

/// The reading and resolving of redemptions. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Redemptions {
    store: Store,
    pools: Pools,
    settler: Settler,
}

impl Redemptions {
    /// The redemptions of a store.
    pub fn new(store: Store, pools: Pools, settler: Settler) -> Self {
        Self { store, pools, settler }
    }

    /// Reads a redemption by its id.
    pub async fn get(
        &self,
        pool_id: &PoolId,
        id: RedemptionId,
    ) -> Result<(Pool, Redemption), Error> {
        let found = self.store.get_redemption(pool_id, id).await?;
        self.found(pool_id, found, &id.to_string()).await
    }

    /// Reads the redemption that stands for a request.
    pub async fn get_by_request(
        &self,
        pool_id: &PoolId,
        request_id: &RequestId,
    ) -> Result<(Pool, Redemption), Error> {
        let found = self.store.get_redemption_by_request(pool_id, request_id).await?;
        self.found(pool_id, found.map(|(redemption, _)| redemption), request_id.as_str()).await
    }

    async fn found(
        &self,
        pool_id: &PoolId,
        found: Option<Redemption>,
        name: &str,
    ) -> Result<(Pool, Redemption), Error> {
        let redemption =
            found.ok_or_else(|| Error::RedemptionNotFound(pool_id.clone(), name.to_owned()))?;
        Ok((self.pools.settings(pool_id).await?, redemption))
    }

    /// Lists the redemptions of a pool before `before`, newest first, at most `limit`.
    pub async fn list(
        &self,
        pool_id: &PoolId,
        filter: &RedemptionFilter,
        before: RedemptionId,
        limit: i64,
    ) -> Result<(Pool, Vec<Redemption>), Error> {
        let pool = self.pools.settings(pool_id).await?;
        Ok((pool, self.store.list_redemptions(pool_id, filter, before, limit).await?))
    }

    /// Closes a redemption by a person's word. The same word twice is fine.
    pub async fn resolve(&self, command: ResolveCommand) -> Result<(Pool, Redemption), Error> {
        let (pool, redemption) = self.get(&command.pool_id, command.redemption_id).await?;
        if let ResolvedOutcome::Succeeded { amount, .. } = &command.outcome {
            check_currencies(&pool, [("amount", Some(*amount))])?;
        }
        if redemption.state == RedemptionState::Submitted {
            return Err(Error::RedemptionOpen(redemption.redemption_id));
        }
        let outcome = outcome(&command);
        let (settled_now, redemption) =
            self.settler.resolve(&redemption, outcome, command.resolution.clone()).await?;
        if !settled_now && !says_the_same(&redemption, &command.outcome) {
            return Err(Error::AlreadySettled {
                redemption_id: redemption.redemption_id,
                state: redemption.state,
            });
        }
        if settled_now {
            tracing::warn!(
                pool_id = %redemption.pool_id,
                redemption_id = %redemption.redemption_id,
                resolved_by = command.resolution.resolved_by,
                state = redemption.state.as_str(),
                "resolved by a person"
            );
        }
        Ok((pool, redemption))
    }
}

fn outcome(command: &ResolveCommand) -> Outcome {
    match &command.outcome {
        ResolvedOutcome::Succeeded { amount, provider_ref } => {
            Outcome::Succeeded { amount: *amount, provider_ref: provider_ref.clone() }
        }
        ResolvedOutcome::Failed { code_spent } => Outcome::Failed(Failure {
            reason: RESOLVED_AS_FAILED.to_owned(),
            message: command.resolution.reason.clone(),
            code_spent: *code_spent,
        }),
    }
}

/// Whether a settled redemption is what the person says that it is.
fn says_the_same(redemption: &Redemption, outcome: &ResolvedOutcome) -> bool {
    match outcome {
        ResolvedOutcome::Succeeded { amount, .. } => {
            redemption.state == RedemptionState::Succeeded && redemption.amount == Some(*amount)
        }
        ResolvedOutcome::Failed { code_spent } => {
            redemption.state == RedemptionState::Failed
                && redemption.failure.as_ref().is_some_and(|f| f.code_spent == *code_spent)
        }
    }
}
