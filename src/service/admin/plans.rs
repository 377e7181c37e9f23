//! Plans: what the accounts of a pool are filled for.

use std::time::Duration;

use super::MAX_UPDATES;
use crate::{
    domain::{
        id::{PlanId, PoolId},
        money::Money,
        page::Page,
        plan::{Denominations, Terms},
        pool::{Plan, Pool},
        principal::Authority,
    },
    service::{
        days::advance_days,
        error::{Error, Violation},
        pools::{Pools, check_currencies},
    },
    store::Store,
};

/// The amounts of a plan, as they were given: each with the field that it stands in.
pub type Amounts = Vec<(String, Money)>;

/// What to change of a plan.
#[derive(Clone, Debug, Default)]
pub struct PlanChange {
    /// See [`Terms`].
    pub target_minor: Option<i64>,
    /// See [`Terms`].
    pub day_amounts_minor: Option<Vec<i64>>,
    /// See [`Terms`].
    pub day_tolerance_minor: Option<i64>,
    /// See [`Terms`].
    pub day_interval: Option<Duration>,
    /// See [`Terms`].
    pub redemption_interval: Option<Duration>,
    /// See [`Terms`].
    pub denominations: Option<Denominations>,
}

impl PlanChange {
    /// The terms as they are with the change.
    pub fn apply(self, terms: &Terms) -> Terms {
        Terms {
            target_minor: self.target_minor.unwrap_or(terms.target_minor),
            day_amounts_minor: self
                .day_amounts_minor
                .unwrap_or_else(|| terms.day_amounts_minor.clone()),
            day_tolerance_minor: self.day_tolerance_minor.unwrap_or(terms.day_tolerance_minor),
            day_interval: self.day_interval.unwrap_or(terms.day_interval),
            redemption_interval: self.redemption_interval.unwrap_or(terms.redemption_interval),
            denominations: self.denominations.unwrap_or_else(|| terms.denominations.clone()),
        }
    }
}

/// The keeping of plans. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Plans {
    store: Store,
    pools: Pools,
}

impl Plans {
    /// The plans of a store.
    pub fn new(store: Store, pools: Pools) -> Self {
        Self { store, pools }
    }

    /// Creates a plan.
    pub async fn create(
        &self,
        pool_id: &PoolId,
        plan_id: &PlanId,
        terms: &Terms,
        amounts: Amounts,
        by: &Authority,
    ) -> Result<(Pool, Plan), Error> {
        let pool = self.pools.settings(pool_id).await?;
        check_currencies(&pool, amounts.iter().map(|(field, money)| (&**field, Some(*money))))?;
        check_terms(terms)?;
        let Some(plan) = self.store.insert_plan(pool_id, plan_id, terms, by).await? else {
            // The pool may have been deleted since its settings were read.
            self.pools.get(pool_id).await?;
            return Err(Error::PlanExists(pool_id.clone(), plan_id.clone()));
        };
        Ok((pool, plan))
    }

    /// Reads a plan.
    pub async fn get(&self, pool_id: &PoolId, plan_id: &PlanId) -> Result<(Pool, Plan), Error> {
        let plan = self.read(pool_id, plan_id).await?;
        Ok((self.pools.settings(pool_id).await?, plan))
    }

    /// Lists the plans of a pool after `after`, at most `limit`.
    pub async fn list(
        &self,
        pool_id: &PoolId,
        after: &str,
        limit: i64,
    ) -> Result<(Pool, Page<Plan>), Error> {
        let pool = self.pools.settings(pool_id).await?;
        Ok((pool, self.store.list_plans(pool_id, after, limit).await?))
    }

    /// Changes a plan. Free accounts whose day has nothing left to take under the new terms go on to their next
    /// one. The sweeper does the same for those that are under a lease now.
    pub async fn update(
        &self,
        pool_id: &PoolId,
        plan_id: &PlanId,
        change: PlanChange,
        amounts: Amounts,
        by: &Authority,
    ) -> Result<(Pool, Plan), Error> {
        // Once more when another change came between the read and this one.
        for _ in 0..MAX_UPDATES {
            let now = self.read(pool_id, plan_id).await?;
            let pool = self.pools.settings(pool_id).await?;
            check_currencies(&pool, amounts.iter().map(|(field, money)| (&**field, Some(*money))))?;
            let terms = change.clone().apply(&now.terms);
            check_terms(&terms)?;
            if let Some(plan) = self.store.update_plan(&now, &terms, by).await? {
                tracing::info!(%pool_id, %plan_id, ?terms, "plan updated");
                advance_days(&self.store, pool_id, plan_id, "api").await;
                return Ok((pool, plan));
            }
        }
        Err(Error::Overloaded)
    }

    /// Deletes a plan that no account is bound to.
    pub async fn delete(
        &self,
        pool_id: &PoolId,
        plan_id: &PlanId,
        by: &Authority,
    ) -> Result<(), Error> {
        if self.store.delete_plan(pool_id, plan_id, by).await? {
            tracing::info!(%pool_id, %plan_id, "plan deleted");
            return Ok(());
        }
        self.read(pool_id, plan_id).await?;
        // The account that was bound to it may have gone since: the answer holds for when it was tried.
        let account_id = self.store.get_plan_user(pool_id, plan_id).await?;
        Err(Error::PlanInUse { pool_id: pool_id.clone(), plan_id: plan_id.clone(), account_id })
    }

    async fn read(&self, pool_id: &PoolId, plan_id: &PlanId) -> Result<Plan, Error> {
        let plan = self.store.get_plan(pool_id, plan_id).await?;
        plan.ok_or_else(|| Error::PlanNotFound(pool_id.clone(), plan_id.clone()))
    }
}

fn check_terms(terms: &Terms) -> Result<(), Error> {
    let violation = |(field, rule)| Violation::new(format!("plan.{field}"), rule);
    let violations: Vec<_> = terms.violations().into_iter().map(violation).collect();
    if violations.is_empty() { Ok(()) } else { Err(Error::Invalid(violations)) }
}
