//! Pools: their settings, cached for the other services.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, timeout};

use super::error::{Error, Violation};
use crate::{
    domain::{
        id::PoolId,
        money::{Currency, Money},
        pool::Pool,
    },
    store::Store,
};

/// How long a pool's settings are taken as read. A change on another server is seen within it; a
/// pause is seen at once, because the statements read the pool's row themselves.
const FRESH: Duration = Duration::from_secs(1);

/// From when on one caller reads them anew, while the others go on with what is cached. Otherwise all of them
/// would ask at the same moment, once a second, under load hundreds.
const AGED: Duration = Duration::from_millis(700);

/// How long settings are kept that nobody asks for: there may be thousands of pools.
const KEPT: Duration = Duration::from_secs(30);

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
    pub(super) store: Store,
    cached: Arc<Mutex<Cached>>,
}

#[derive(Debug, Default)]
struct Cached {
    pools: HashMap<PoolId, Known>,
    /// When settings that were old were let go of.
    pruned_at: Option<Instant>,
}

/// A pool that was asked for. Its name and currency are kept, and its settings for a while.
#[derive(Debug)]
struct Known {
    currency: Currency,
    settings: Option<Box<CachedPool>>,
}

impl Cached {
    fn settings(&mut self, pool_id: &PoolId) -> Option<Pool> {
        self.pools.get_mut(pool_id)?.settings.as_mut()?.fresh()
    }

    fn prune(&mut self, now: Instant) {
        if now < *self.pruned_at.get_or_insert(now) + KEPT {
            return;
        }
        self.pruned_at = Some(now);
        for known in self.pools.values_mut() {
            known.settings.take_if(|cached| cached.read_at + KEPT <= now);
        }
    }
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
        let fresh = self.cached().settings(pool_id);
        match fresh {
            Some(pool) => Ok(pool),
            None => self.get(pool_id).await,
        }
    }

    /// A pool's currency. It never changes, unless the pool is deleted and another one gets its id: so a cached one is
    /// read anew when it is old. An answer that is there already does not wait long for the database.
    pub async fn currency(&self, pool_id: &PoolId) -> Result<Currency, Error> {
        let cached = self.cached().pools.get(pool_id).map(|known| known.currency);
        match (timeout(FRESH, self.settings(pool_id)).await, cached) {
            (Ok(Ok(pool)), _) => Ok(pool.currency),
            (Ok(Err(gone @ Error::PoolNotFound(_))), _) => Err(gone),
            (_, Some(currency)) => Ok(currency),
            (Ok(Err(error)), None) => Err(error),
            (Err(_), None) => Ok(self.get(pool_id).await?.currency),
        }
    }

    /// The pools that were asked for, for a sweep while the list of all pools cannot be read.
    pub fn cached_ids(&self) -> Vec<PoolId> {
        self.cached().pools.keys().cloned().collect()
    }

    /// Reads a pool.
    pub async fn get(&self, pool_id: &PoolId) -> Result<Pool, Error> {
        match self.store.get_pool(pool_id).await? {
            Some(pool) => Ok(self.remember(pool)),
            None => {
                self.forget(pool_id);
                Err(Error::PoolNotFound(pool_id.clone()))
            }
        }
    }

    /// Lets go of a pool that is deleted.
    pub(super) fn forget(&self, pool_id: &PoolId) {
        self.cached().pools.remove(pool_id);
    }

    /// Keeps a pool's settings as they were just read or written.
    pub(super) fn remember(&self, pool: Pool) -> Pool {
        let now = Instant::now();
        let settings = Box::new(CachedPool { pool: pool.clone(), read_at: now, asked_at: None });
        let known = Known { currency: pool.currency, settings: Some(settings) };
        let mut cached = self.cached();
        cached.pools.insert(pool.pool_id.clone(), known);
        cached.prune(now);
        pool
    }

    fn cached(&self) -> std::sync::MutexGuard<'_, Cached> {
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
