//! Pools: their settings, cached for the other services.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::error::{Error, Violation};
use crate::{
    domain::{
        id::PoolId,
        lease::{MAX_LEASE, MIN_LEASE},
        money::{Currency, Money},
        page::Page,
        pool::{NewPool, Pool, PoolChange},
    },
    store::Store,
};

/// How long a pool's settings are taken as read. A change on another server is seen within it; a
/// pause is seen at once, because the statements read the pool's row themselves.
const FRESH: Duration = Duration::from_secs(1);

/// From when on one caller reads them anew, while the others go on with what is cached. Otherwise all of them
/// would ask at the same moment, once a second, under load hundreds.
const AGED: Duration = Duration::from_millis(700);

/// How often a change of a pool that others change too is tried.
pub(super) const MAX_UPDATES: u32 = 5;

impl CachedPool {
    /// The settings, unless the caller is to read them anew.
    fn fresh(&mut self) -> Option<Pool> {
        let age = self.read_at.elapsed();
        if age < AGED {
            return Some(self.pool.clone());
        }
        let others_ask = self.asked_at.is_some_and(|at| at.elapsed() < FRESH);
        if age < FRESH && others_ask {
            return Some(self.pool.clone());
        }
        self.asked_at = Some(Instant::now());
        None
    }
}

/// Pools. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Pools {
    store: Store,
    cached: Arc<Mutex<HashMap<PoolId, CachedPool>>>,
}

#[derive(Debug)]
struct CachedPool {
    pool: Pool,
    read_at: Instant,
    /// Somebody reads it anew since then.
    asked_at: Option<Instant>,
}

impl Pools {
    /// The pools of a store.
    pub fn new(store: Store) -> Self {
        Self { store, cached: Arc::default() }
    }

    /// A pool's settings, at most [`FRESH`] old.
    pub async fn settings(&self, pool_id: &PoolId) -> Result<Pool, Error> {
        let fresh = self.cached().get_mut(pool_id).and_then(CachedPool::fresh);
        match fresh {
            Some(pool) => Ok(pool),
            None => self.get(pool_id).await,
        }
    }

    /// A pool's currency. It never changes, so a cached one is good at any age. An answer
    /// that is there already does not wait for the database.
    pub async fn currency(&self, pool_id: &PoolId) -> Result<Currency, Error> {
        let cached = self.cached().get(pool_id).map(|cached| cached.pool.currency);
        match cached {
            Some(currency) => Ok(currency),
            None => Ok(self.get(pool_id).await?.currency),
        }
    }

    /// The pools that were asked for, for a sweep while the list of all pools cannot be read.
    pub fn cached_ids(&self) -> Vec<PoolId> {
        self.cached().keys().cloned().collect()
    }

    /// Reads a pool.
    pub async fn get(&self, pool_id: &PoolId) -> Result<Pool, Error> {
        let pool = self.store.get_pool(pool_id).await?;
        let pool = pool.ok_or_else(|| Error::PoolNotFound(pool_id.clone()))?;
        Ok(self.remember(pool))
    }

    /// Creates a pool.
    pub async fn create(&self, new: &NewPool) -> Result<Pool, Error> {
        check_bounds("pool.", new.min_lease, new.default_lease, new.max_lease)?;
        let pool = self.store.insert_pool(new).await?;
        pool.map(|pool| self.remember(pool)).ok_or_else(|| Error::PoolExists(new.pool_id.clone()))
    }

    /// Changes a pool.
    pub async fn update(&self, pool_id: &PoolId, change: PoolChange) -> Result<Pool, Error> {
        // Once more when another change came between the read and this one.
        for _ in 0..MAX_UPDATES {
            let now = self.get(pool_id).await?;
            check_bounds(
                "pool.",
                change.min_lease.unwrap_or(now.min_lease),
                change.default_lease.unwrap_or(now.default_lease),
                change.max_lease.unwrap_or(now.max_lease),
            )?;
            if let Some(pool) = self.store.update_pool(pool_id, change).await? {
                tracing::info!(
                    %pool_id, paused = pool.paused, draining = pool.draining, "pool updated"
                );
                return Ok(self.remember(pool));
            }
        }
        Err(Error::Overloaded)
    }

    /// Lists the pools after `after`, at most `limit`.
    pub async fn list(&self, after: &str, limit: i64) -> Result<Page<Pool>, Error> {
        Ok(self.store.list_pools(after, limit).await?)
    }

    fn remember(&self, pool: Pool) -> Pool {
        let cached = CachedPool { pool: pool.clone(), read_at: Instant::now(), asked_at: None };
        self.cached().insert(pool.pool_id.clone(), cached);
        pool
    }

    fn cached(&self) -> std::sync::MutexGuard<'_, HashMap<PoolId, CachedPool>> {
        self.cached.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Refuses amounts that are not in the pool's currency; each with the field that it stands in.
pub(super) fn check_currencies<'a>(
    pool: &Pool,
    amounts: impl IntoIterator<Item = (&'a str, Option<Money>)>,
) -> Result<(), Error> {
    let violations: Vec<_> = amounts
        .into_iter()
        .filter_map(|(field, money)| currency_violation(pool, field, money?))
        .collect();
    if violations.is_empty() { Ok(()) } else { Err(Error::Invalid(violations)) }
}

fn currency_violation(pool: &Pool, field: &str, money: Money) -> Option<Violation> {
    (money.currency != pool.currency).then(|| {
        Violation::new(
            format!("{field}.currency_code"),
            format!("must be {}, the currency of pool {}", pool.currency, pool.pool_id),
        )
    })
}

/// The lease duration that is asked for, or the pool's own.
pub(super) fn lease_duration(pool: &Pool, asked: Option<Duration>) -> Result<Duration, Error> {
    let ttl = asked.unwrap_or(pool.default_lease);
    if (pool.min_lease..=pool.max_lease).contains(&ttl) {
        return Ok(ttl);
    }
    Err(Error::Invalid(vec![Violation::new(
        "lease_duration",
        format!(
            "must be between {} and {} in pool {}",
            humantime::format_duration(pool.min_lease),
            humantime::format_duration(pool.max_lease),
            pool.pool_id,
        ),
    )]))
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
