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

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

mod limited;
mod shared;
mod state;

use self::shared::Shared;
pub use self::{
    limited::{LimitedProvider, SendPermit, brake_outcome, free},
    shared::Permit,
};
use super::Error;
use crate::{
    domain::{
        id::{PoolId, ProviderId},
        pool::Pool,
        provider::{AppliedProfile, ProfileVersion, ProviderStatus},
        redemption::Redemption,
    },
    provider::{
        Provider, SecretValues,
        profile::{Limits, Profile},
        secrets::Secrets,
    },
    store::{Store, provider_limits::SharedState},
};

/// How long the newest version is taken as read. A profile that was applied is used by all servers within it.
const FRESH: Duration = Duration::from_secs(2);
/// How often it is read what holds for all servers together.
const FOLLOW: Duration = Duration::from_secs(1);
/// How long an account may be kept under a lease until its card can be sent.
const LEASED_PATIENCE: Duration = Duration::from_secs(5);

/// The providers of this installation. Cheap to clone.
#[derive(Clone)]
pub struct Providers(Arc<Inner>);

struct Inner {
    store: Store,
    built_in: Provider,
    secrets_dir: Option<PathBuf>,
    loaded: Mutex<Loaded>,
    shared: Mutex<HashMap<ProviderId, Arc<Shared>>>,
    closing: CancellationToken,
}

#[derive(Default)]
struct Loaded {
    versions: HashMap<ProfileVersion, Provider>,
    newest: HashMap<ProviderId, (Instant, Provider)>,
}

impl Providers {
    /// The built-in provider, and those whose profiles `store` has. Their secrets are files in `secrets_dir`. When
    /// `closing` is cancelled, no more calls are begun.
    pub fn new(
        store: Store,
        built_in: Provider,
        secrets_dir: Option<PathBuf>,
        closing: CancellationToken,
    ) -> Self {
        let loaded = Mutex::default();
        let shared = Mutex::default();
        Self(Arc::new(Inner { store, built_in, secrets_dir, loaded, shared, closing }))
    }

    /// The provider that a pool's new redemptions are sent to, by the newest version of its profile. It can be asked:
    /// no secret is missing.
    pub async fn of_pool(&self, pool: &Pool) -> Result<LimitedProvider, Error> {
        if pool.provider_id.is_built_in() {
            return Ok(self.built_in(&pool.pool_id));
        }
        let provider = self.newest(&pool.provider_id).await?;
        if let Err(missing) = provider.secrets() {
            return Err(unusable(&pool.provider_id, missing.join("; ")));
        }
        let shared = self.shared(&pool.provider_id, &provider);
        shared.set_limits(&provider.profile().limits);
        Ok(LimitedProvider::new(provider, shared, pool.pool_id.clone()))
    }

    /// The built-in provider, for a pool.
    pub fn built_in(&self, pool_id: &PoolId) -> LimitedProvider {
        let provider = self.0.built_in.clone();
        let shared = self.shared(&provider.version().provider_id, &provider);
        LimitedProvider::new(provider, shared, pool_id.clone())
    }

    /// Why the pool's accounts are not given out now: its provider fails as a whole, or wants no calls.
    pub fn check_available(&self, pool: &Pool) -> Result<(), Error> {
        let shared = {
            let all = self.0.shared.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(shared) = all.get(&pool.provider_id) else { return Ok(()) };
            Arc::clone(shared)
        };
        let held = shared.state().held_for_acquisitions(Instant::now(), LEASED_PATIENCE);
        held.map_or(Ok(()), |held| {
            Err(Error::ProviderUnavailable {
                provider_id: pool.provider_id.clone(),
                why: held.why,
                retry_after: Some(held.retry_after),
            })
        })
    }

    /// What holds back the calls to the pool's provider, as all servers see it.
    pub async fn status(&self, pool: &Pool) -> Result<Option<ProviderStatus>, Error> {
        let provider_id = &pool.provider_id;
        // One that cannot be loaded here has no brake that this server could know.
        let brake = if provider_id.is_built_in() {
            self.0.built_in.profile().limits.brake.as_ref().map(|brake| brake.count)
        } else {
            let newest = self.newest(provider_id).await.ok();
            newest.and_then(|newest| Some(newest.profile().limits.brake.as_ref()?.count))
        };
        let asked = [(provider_id, brake.unwrap_or_default())];
        Ok(self.0.store.list_status(&asked).await?.into_iter().next())
    }

    /// Whether calls about redemptions of the pool may be made now. A provider that fails may be tried when it is due.
    pub fn may_be_asked(&self, pool: &Pool) -> bool {
        let all = self.0.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = all.get(&pool.provider_id);
        let held = |shared: &Arc<Shared>| shared.state().held(Instant::now(), Duration::ZERO);
        shared.and_then(held).is_none()
    }

    /// Reads every second what holds for all servers together, until `stop`.
    pub async fn follow(self, stop: CancellationToken) {
        while stop.run_until_cancelled(sleep(FOLLOW)).await.is_some() {
            match self.0.store.list_limits().await {
                Ok(all) => all.iter().for_each(|shared| self.read(shared)),
                Err(error) => {
                    tracing::debug!(%error, "cannot read what holds back the calls to providers");
                }
            }
        }
    }

    fn read(&self, read: &SharedState) {
        let shared = {
            let mut all = self.0.shared.lock().unwrap_or_else(PoisonError::into_inner);
            let shared = all.entry(read.provider_id.clone());
            Arc::clone(
                shared.or_insert_with(|| self.new_shared(&read.provider_id, Limits::default())),
            )
        };
        shared.read(read);
    }

    fn shared(&self, provider_id: &ProviderId, provider: &Provider) -> Arc<Shared> {
        let mut all = self.0.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = all.get(provider_id) {
            return Arc::clone(shared);
        }
        let shared = self.new_shared(provider_id, provider.profile().limits.clone());
        all.insert(provider_id.clone(), Arc::clone(&shared));
        shared
    }

    fn new_shared(&self, provider_id: &ProviderId, limits: Limits) -> Arc<Shared> {
        let closing = self.0.closing.clone();
        Arc::new(Shared::new(self.0.store.clone(), provider_id.clone(), limits, closing))
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
    pub async fn pinned(&self, redemption: &Redemption) -> Result<LimitedProvider, Error> {
        let provider = self.version(&redemption.profile).await?;
        let shared = self.shared(&redemption.profile.provider_id, &provider);
        Ok(LimitedProvider::new(provider, shared, redemption.pool_id.clone()))
    }

    async fn version(&self, version: &ProfileVersion) -> Result<Provider, Error> {
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
        let profile = Profile::parse_applied(&applied.text).map_err(|faults| {
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
    Error::ProviderUnavailable { provider_id: provider_id.clone(), why, retry_after: None }
}

/// What a provider is called in a code's fingerprint.
pub(in crate::service) fn fingerprint_name(provider_id: &ProviderId) -> &str {
    // From when there was one provider: what is stored stays comparable.
    if provider_id.is_built_in() { "default" } else { provider_id.as_str() }
}
