//! Routes: which webhook serves which path. Kept in memory and read anew every few seconds, so that a call of whoever
//! costs no statement.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::paths::{choose, sort};
use crate::{
    domain::{id::ProviderId, provider::ProfileVersion},
    provider::{
        profile::{KeyKind, Profile, Webhook},
        secrets::Secrets,
    },
    store::{Store, StoreError},
};

/// How often the applied profiles are read. One that was applied is served by all servers within it.
const REFRESH: Duration = Duration::from_secs(2);

/// What serves a path.
#[derive(Debug)]
pub struct Hook {
    /// Whose redemptions it is about.
    pub provider_id: ProviderId,
    pub(super) key: KeyKind,
    pub(super) webhook: Webhook,
    pub(super) secrets: Secrets,
    /// Which of them the signature is made with.
    pub(super) names: BTreeSet<String>,
}

/// What serves each path. `None` until it was read for the first time.
#[derive(Default)]
pub(super) struct Routes(RwLock<Option<HashMap<String, Arc<Hook>>>>);

/// Nothing was read yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotReady;

impl Routes {
    pub(super) fn get(&self, path: &str) -> Result<Option<Arc<Hook>>, NotReady> {
        let routes = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Ok(routes.as_ref().ok_or(NotReady)?.get(path).cloned())
    }

    /// Reads the applied profiles every few seconds, until `stop`.
    pub(super) async fn keep(
        &self,
        store: &Store,
        secrets_dir: Option<PathBuf>,
        stop: CancellationToken,
    ) {
        let mut loaded = Loaded { secrets_dir, ..Loaded::default() };
        let mut pause = Duration::ZERO;
        while stop.run_until_cancelled(sleep(pause)).await.is_some() {
            match loaded.read(store).await {
                Ok(routes) => {
                    loaded.tell_missing(&routes);
                    *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(routes);
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot read which profiles have webhooks; those that are known are served");
                }
            }
            pause = REFRESH;
        }
    }
}

/// The versions that were read: none ever changes.
#[derive(Default)]
struct Loaded {
    secrets_dir: Option<PathBuf>,
    hooks: HashMap<ProfileVersion, Option<Arc<Hook>>>,
    /// The paths whose secrets are missing, which was logged.
    missing: HashSet<String>,
}

impl Loaded {
    async fn read(&mut self, store: &Store) -> Result<HashMap<String, Arc<Hook>>, StoreError> {
        let mut versions = store.list_profile_versions().await?;
        sort(&mut versions);
        let mut with_path = Vec::new();
        for (version, _) in versions {
            let hook = match self.hooks.get(&version) {
                Some(hook) => hook.clone(),
                None => {
                    let hook = self.load(store, &version).await?;
                    self.hooks.insert(version.clone(), hook.clone());
                    hook
                }
            };
            if let Some(hook) = hook {
                with_path.push((hook.webhook.path.clone(), version, hook));
            }
        }
        Ok(choose(with_path).into_iter().map(|(path, (_, hook))| (path, hook)).collect())
    }

    async fn load(
        &self,
        store: &Store,
        version: &ProfileVersion,
    ) -> Result<Option<Arc<Hook>>, StoreError> {
        let Some(applied) = store.get_profile(version).await? else { return Ok(None) };
        let read = tokio::task::spawn_blocking(move || Profile::parse_applied(&applied.text)).await;
        let Ok(Ok(profile)) = read else {
            tracing::warn!(%version, "a profile cannot be read by this program: its webhook is not served");
            return Ok(None);
        };
        let provider_id = version.provider_id.clone();
        let secrets = Secrets::new(self.secrets_dir.clone(), &provider_id);
        Ok(profile.webhook.map(|webhook| {
            let names = webhook.secrets();
            let key = profile.identity.key;
            Arc::new(Hook { provider_id, key, webhook, secrets, names })
        }))
    }

    /// Says once of each path that this server lacks its secrets. Calls say nothing: there may be thousands.
    fn tell_missing(&mut self, routes: &HashMap<String, Arc<Hook>>) {
        for (path, hook) in routes {
            let provider_id = &hook.provider_id;
            match hook.secrets.read(&hook.names) {
                Ok(_) if self.missing.remove(path) => {
                    tracing::info!(%provider_id, path, "a webhook's secrets are there: its calls are heard");
                }
                Err(why) if self.missing.insert(path.clone()) => {
                    let why = why.join("; ");
                    tracing::warn!(%provider_id, path, why, "a webhook's calls are refused: its secrets are missing");
                }
                Ok(_) | Err(_) => {}
            }
        }
    }
}
