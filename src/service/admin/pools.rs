//! Pools, as people keep them: created, changed and listed.

use std::time::Duration;

use super::{MAX_UPDATES, providers::newest_profile};
use crate::{
    domain::{
        access::PoolFilter,
        id::PoolId,
        lease::{MAX_LEASE, MIN_LEASE},
        page::Page,
        pool::{NewPool, Pool, PoolChange},
        principal::Authority,
    },
    service::{
        error::{Error, Violation, all},
        pools::Pools,
    },
};

impl Pools {
    /// Creates a pool.
    pub async fn create(&self, new: &NewPool, by: &Authority) -> Result<Pool, Error> {
        all([
            check_bounds("pool.", new.min_lease, new.default_lease, new.max_lease),
            self.check_provider(new).await,
        ])?;
        let pool = self.store.insert_pool(new, by).await?;
        pool.map(|pool| self.remember(pool)).ok_or_else(|| Error::PoolExists(new.pool_id.clone()))
    }

    /// Refuses a provider that is not there, and a currency that it does not take.
    async fn check_provider(&self, new: &NewPool) -> Result<(), Error> {
        let profile = newest_profile(&self.store, &new.provider_id).await?;
        if profile.takes(new.currency) {
            return Ok(());
        }
        let takes: Vec<_> = profile.currencies.iter().map(ToString::to_string).collect();
        let rule = format!(
            "must be one of {}, which provider {} takes",
            takes.join(", "),
            new.provider_id
        );
        Err(Error::Invalid(vec![Violation::new("pool.currency_code", rule)]))
    }

    /// Changes a pool.
    pub async fn update(
        &self,
        pool_id: &PoolId,
        change: PoolChange,
        by: &Authority,
    ) -> Result<Pool, Error> {
        // Once more when another change came between the read and this one.
        for _ in 0..MAX_UPDATES {
            let now = self.get(pool_id).await?;
            check_bounds(
                "pool.",
                change.min_lease.unwrap_or(now.min_lease),
                change.default_lease.unwrap_or(now.default_lease),
                change.max_lease.unwrap_or(now.max_lease),
            )?;
            if let Some(pool) = self.store.update_pool(pool_id, change, by).await? {
                tracing::info!(
                    %pool_id, paused = pool.paused, draining = pool.draining, "pool updated"
                );
                return Ok(self.remember(pool));
            }
        }
        Err(Error::Overloaded)
    }

    /// Deletes a pool that never had an account, with its plans.
    pub async fn delete(&self, pool_id: &PoolId, by: &Authority) -> Result<(), Error> {
        // Once more when a plan was made at the same moment.
        for _ in 0..MAX_UPDATES {
            if self.store.delete_pool(pool_id, by).await? {
                self.forget(pool_id);
                tracing::info!(%pool_id, "pool deleted");
                return Ok(());
            }
            self.get(pool_id).await?;
            let of = self.store.pool_use(pool_id).await?;
            if of.had_accounts {
                return Err(Error::PoolInUse(pool_id.clone(), of));
            }
        }
        Err(Error::Overloaded)
    }

    /// Lists the pools after `after`, at most `limit`.
    pub async fn list(
        &self,
        after: &str,
        limit: i64,
        filter: &PoolFilter,
    ) -> Result<Page<Pool>, Error> {
        Ok(self.store.list_pools(after, limit, filter).await?)
    }
}

fn check_bounds(
    prefix: &str,
    min: Duration,
    default: Duration,
    max: Duration,
) -> Result<(), Error> {
    let mut violations = Vec::new();
    let bounds = MIN_LEASE..=MAX_LEASE;
    let named = [
        ("min_lease_duration", min),
        ("default_lease_duration", default),
        ("max_lease_duration", max),
    ];
    for (name, value) in named {
        if !bounds.contains(&value) {
            violations
                .push(Violation::new(format!("{prefix}{name}"), "must be between 1s and 24h"));
        }
    }
    if min > default {
        let rule = "must not be longer than default_lease_duration";
        violations.push(Violation::new(format!("{prefix}min_lease_duration"), rule));
    }
    if max < default {
        let rule = "must not be shorter than default_lease_duration";
        violations.push(Violation::new(format!("{prefix}max_lease_duration"), rule));
    }
    if violations.is_empty() { Ok(()) } else { Err(Error::Invalid(violations)) }
}
