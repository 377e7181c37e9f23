//! Keeping up with the secret keys: the file, which may have more of them by now, and the database, which says which is
//! current.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{
    secret::SecretKeys,
    service::Error,
    store::{Store, StoreError},
};

/// How often both are read. A refusal of the database is a reason to do so at once.
const EVERY: Duration = Duration::from_secs(2);

/// Takes the keys of the first start: those that are in use, or else those of the file.
///
/// # Errors
/// When the file lacks one that is in use, or has another under its id.
pub async fn take_up(store: &Store, secret: &SecretKeys) -> anyhow::Result<()> {
    let mut stored = store.list_keys().await?;
    if stored.is_empty() {
        let keys = secret.now();
        let check_value = keys.check_value(keys.first()).unwrap_or_default();
        store.install_key(keys.first(), &check_value).await?;
        stored = store.list_keys().await?;
    }
    secret.follow(&stored)?;
    let keys = secret.now();
    if keys.first() != keys.current() {
        tracing::info!(
            current = %keys.current(), first = %keys.first(),
            "the first secret key of the file is not current: `holdfast keys rotate` makes it so"
        );
    }
    Ok(())
}

/// Reads what is new at once, because the database refused what was made with an old key.
pub(super) async fn catch_up(store: &Store, secret: &SecretKeys) -> Result<(), Error> {
    let stored = store.list_keys().await?;
    match secret.follow(&stored) {
        Ok(_) => Ok(()),
        Err(error) => {
            tracing::error!(error = %format!("{error:#}"), "the secret keys cannot be used");
            Err(StoreError::KeyChanged.into())
        }
    }
}

/// Reads the file and the database now and then, and tells others which keys this server has, until `stop`.
pub async fn run(store: Store, secret: SecretKeys, stop: CancellationToken) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = None;
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        // A database that is away is told of by others.
        let Ok(stored) = store.list_keys().await else { continue };
        match secret.follow(&stored) {
            Ok(is_new) => {
                if is_new {
                    let keys = secret.now();
                    let ids: Vec<_> = keys.ids().iter().map(ToString::to_string).collect();
                    tracing::info!(current = %keys.current(), keys = ids.join(", "), "secret keys read");
                }
                told = None;
                let _ = store.note_keys(&secret.now().ids()).await;
            }
            Err(error) => {
                let error = format!("{error:#}");
                if told.as_ref() != Some(&error) {
                    tracing::error!(%error, "the secret keys are used as they were before: the file cannot be used");
                }
                told = Some(error);
            }
        }
    }
}
