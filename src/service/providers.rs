//! Providers: the one that a pool's new redemptions are sent to, and the one that a redemption is pinned to.
//!
//! Each version of a profile is loaded once, when it is first needed. Which version is the newest is read from the
//! database every few seconds.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::Error;
use crate::{
    domain::{
        id::ProviderId,
        pool::Pool,
        provider::{AppliedProfile, ProfileVersion},
    },
    provider::{Provider, SecretValues, profile::Profile, secrets::Secrets},
    store::Store,
};

/// How long the newest version is taken as read. A profile that was applied is used by all servers within it.
const FRESH: Duration = Duration::from_secs(2);

/// The providers of this installation. Cheap to clone.
#[derive(Clone)]
pub struct Providers(Arc<Inner>);

struct Inner {
    store: Store,
    built_in: Provider,
    secrets_dir: Option<PathBuf>,
    loaded: Mutex<Loaded>,
}

#[derive(Default)]
struct Loaded {
    versions: HashMap<ProfileVersion, Provider>,
    newest: HashMap<ProviderId, (Instant, Provider)>,
}

impl Providers {
    /// The built-in provider, and those whose profiles `store` has. Their secrets are files in `secrets_dir`.
    pub fn new(store: Store, built_in: Provider, secrets_dir: Option<PathBuf>) -> Self {
        let loaded = Mutex::default();
        Self(Arc::new(Inner { store, built_in, secrets_dir, loaded }))
    }

    /// The provider that a pool's new redemptions are sent to, by the newest version of its profile. It can be asked:
    /// no secret is missing.
    pub async fn of_pool(&self, pool: &Pool) -> Result<Provider, Error> {
        if pool.provider_id.is_built_in() {
            return Ok(self.0.built_in.clone());
        }
        let provider = self.newest(&pool.provider_id).await?;
        match provider.secrets() {
            Ok(_) => Ok(provider),
            Err(missing) => Err(unusable(&pool.provider_id, missing.join("; "))),
        }
    }

    async fn newest(&self, provider_id: &ProviderId) -> Result<Provider, Error> {
        let kept = self.loaded().newest.get(provider_id).cloned();
        let stale = match kept {
            Some((read_at, provider)) if read_at.elapsed() < FRESH => return Ok(provider),
            stale => stale.map(|(_, provider)| provider),
        };
        let applied = match self.0.store.get_newest_profile(provider_id).await {
            Ok(Some(applied)) => applied,
            Ok(None) => return Err(unusable(provider_id, "its profile is not there".to_owned())),
            // The version that was the newest a moment ago is as good as any.
            Err(error) => return stale.ok_or_else(|| error.into()),
        };
        let provider = self.load(&applied)?;
        self.loaded().newest.insert(provider_id.clone(), (Instant::now(), provider.clone()));
        Ok(provider)
    }

    /// The provider that a redemption is pinned to.
    pub async fn pinned(&self, version: &ProfileVersion) -> Result<Provider, Error> {
        if version.provider_id.is_built_in() {
            return Ok(self.0.built_in.clone());
        }
        if let Some(provider) = self.loaded().versions.get(version) {
            return Ok(provider.clone());
        }
        let applied = self.0.store.get_profile(version).await?;
        let why = || format!("version {} of its profile is not there", version.version);
        self.load(&applied.ok_or_else(|| unusable(&version.provider_id, why()))?)
    }

    /// Loads a version, unless it is loaded: its connections and its token are shared by all who use it.
    fn load(&self, applied: &AppliedProfile) -> Result<Provider, Error> {
        let id = &applied.version.provider_id;
        if let Some(provider) = self.loaded().versions.get(&applied.version) {
            return Ok(provider.clone());
        }
        let profile = Profile::parse(&applied.text).map_err(|faults| {
            let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
            unusable(
                id,
                format!("this version of Holdfast cannot read its profile: {}", faults.join("; ")),
            )
        })?;
        let secrets = SecretValues::Files(Secrets::new(self.0.secrets_dir.clone(), id));
        let provider = Provider::new(profile, secrets, None)
            .map_err(|error| unusable(id, format!("{error:#}")))?;
        let mut loaded = self.loaded();
        Ok(loaded.versions.entry(applied.version.clone()).or_insert(provider).clone())
    }

    /// The longest that a reconciler's claim on redemptions of a pool has to last, by the versions that are loaded.
    pub fn longest_hold(&self, provider_id: &ProviderId) -> Duration {
        let loaded = self.loaded();
        let versions = loaded.versions.iter();
        let of_provider = versions.filter(|(version, _)| version.provider_id == *provider_id);
        let holds = of_provider.map(|(_, provider)| provider.limits().hold());
        holds.fold(self.0.built_in.limits().hold(), Duration::max)
    }

    fn loaded(&self) -> MutexGuard<'_, Loaded> {
        self.0.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nothing can be begun with this provider on this server.
fn unusable(provider_id: &ProviderId, why: String) -> Error {
    Error::ProviderUnavailable { provider_id: provider_id.clone(), why }
}

/// What a provider is called in a code's fingerprint.
pub(super) fn fingerprint_name(provider_id: &ProviderId) -> &str {
    // From when there was one provider: what is stored stays comparable.
    if provider_id.is_built_in() { "default" } else { provider_id.as_str() }
}
