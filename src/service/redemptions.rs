//! Redemptions, as people look at them, and close those that nothing else can.

use std::sync::Arc;

use super::{
    Error,
    error::Violation,
    pools::{Pools, check_currencies},
    redeem::code_context,
    settle::Settler,
};
use crate::{
    domain::{
        id::{PoolId, RedemptionId, RequestId},
        money::Money,
        redemption::{Failure, RedemptionState},
    },
    provider::holds_code,
    secret::SecretKey,
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
    secret: Arc<SecretKey>,
    settler: Settler,
}

impl Redemptions {
    /// The redemptions of a store.
    pub fn new(store: Store, pools: Pools, secret: Arc<SecretKey>, settler: Settler) -> Self {
        Self { store, pools, secret, settler }
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
        self.check_words(&command).await?;
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

    /// Refuses words that repeat the card's code: they are kept in clear. Of a redemption that is
    /// settled nobody knows the code any more, and no word is kept.
    async fn check_words(&self, command: &ResolveCommand) -> Result<(), Error> {
        let stored = self.store.get_code(&command.pool_id, command.redemption_id).await?;
        let context = code_context(&command.pool_id, command.redemption_id);
        // One that cannot be decrypted is why a person has to look, and must not keep them from it.
        let Some(code) = stored.and_then(|code| self.secret.decrypt(&context, &code).ok()) else {
            return Ok(());
        };
        let wrong: Vec<Violation> = words(command)
            .into_iter()
            .filter(|(_, text)| holds_code(&code, text))
            .map(|(field, _)| Violation::new(field, "must not hold the card's code"))
            .collect();
        if wrong.is_empty() { Ok(()) } else { Err(Error::Invalid(wrong)) }
    }
}

/// Every text of a person's word that is kept, by its field.
fn words(command: &ResolveCommand) -> Vec<(&'static str, &str)> {
    let Resolution { resolved_by, reason, evidence } = &command.resolution;
    let mut words = vec![("reason", reason.as_str()), ("resolved_by", resolved_by.as_str())];
    words.extend(evidence.as_deref().map(|evidence| ("evidence", evidence)));
    if let ResolvedOutcome::Succeeded { provider_ref: Some(name), .. } = &command.outcome {
        words.push(("provider_ref", name));
    }
    words
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
