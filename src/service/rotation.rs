//! Changing to another secret key while servers run: see
//! `docs/adr/0054-secret-keys-have-ids-and-the-database-says-which-is-current.md`.
//!
//! Each step may be repeated, and what was done is seen in the database. So a change that was ended in the middle goes on
//! when it is begun again.

use std::{fmt, time::Duration};

use anyhow::{Context as _, ensure};
use tokio::time::{Instant, sleep};

use crate::{
    domain::{
        principal::Authority,
        secret_key::{Fingerprint, KeyId, StoredKey},
    },
    secret::SecretKeys,
    service::{account_values, providers::fingerprint_name, redeem::code_context, subscriptions},
    store::{
        Store,
        keys::{KeyUse, SealedCode, SealedCredentials, SealedSubscription},
    },
};

/// How often it is asked whether something waited for has happened.
const POLL: Duration = Duration::from_millis(200);
/// How often all codes and credentials are gone through for those whose row somebody held.
const PASSES: usize = 50;

/// How far the change is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// So many servers have not read the new key yet.
    WaitsForServers(i64),
    /// So many transactions that began before are still writing.
    WaitsForWriters(usize),
    /// The new key is current: everything new is encrypted with it.
    Current(KeyId),
    /// So many codes of open redemptions were encrypted anew, and found by a new fingerprint.
    Codes(i64),
    /// So many accounts' credentials were encrypted anew.
    Credentials(i64),
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WaitsForServers(count) => {
                write!(f, "waiting for {count} servers to read the new key")
            }
            Self::WaitsForWriters(count) => {
                write!(f, "waiting for {count} transactions that write since before")
            }
            Self::Current(key) => write!(f, "the secret key {key} is current"),
            Self::Codes(count) => write!(f, "{count} codes of open redemptions encrypted anew"),
            Self::Credentials(count) => write!(f, "{count} accounts' credentials encrypted anew"),
        }
    }
}

/// Who changes to another key, why, and for how long servers are waited for.
#[derive(Clone, Debug)]
pub struct Order<'a> {
    /// Who; it is recorded.
    pub by: Authority,
    /// Why; it is recorded. May be empty.
    pub reason: &'a str,
    /// How long servers have to read the new key.
    pub patience: Duration,
}

/// A change that is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotated {
    /// The current key.
    pub current: KeyId,
    /// Keys that nothing needs any more.
    pub removable: Vec<KeyId>,
}

/// Makes the first key of the file the current one, and encrypts with it all that is stored.
///
/// # Errors
/// When a server does not read it, or something stored cannot be decrypted, or the database does not answer. What was done
/// stays done.
pub async fn rotate(
    store: &Store,
    secret: &SecretKeys,
    order: &Order<'_>,
    told: &mut (dyn FnMut(Progress) + Send),
) -> anyhow::Result<Rotated> {
    let key = secret.now().first();
    let stored = store.list_keys().await?;
    ensure!(!stored.is_empty(), "no server has used this database yet: there is no key to change");
    secret.follow(&stored)?;
    if !stored.iter().any(|it| it.key_id == key && it.is_current) {
        make_current(store, secret, key, order, told).await?;
        secret.follow(&store.list_keys().await?)?;
    }
    told(Progress::Current(key));
    // Every server that wrote with the old key has ended, or is refused from now on.
    wait_for_writers(store, told).await?;
    let mut after = Sealed { store, secret, key, codes: 0, credentials: 0 };
    after.seal_all(told).await?;
    let stored = store.list_keys().await?;
    let keys = secret.now();
    store.retire_keys(key, &keys.keep_others(&stored)).await?;
    let stored = store.list_keys().await?;
    Ok(Rotated { current: key, removable: removable(&stored) })
}

/// The keys that nothing needs any more: no file has to have them.
pub fn removable(stored: &[StoredKey]) -> Vec<KeyId> {
    let current = stored.iter().find(|it| it.is_current).map(|it| it.key_id);
    let is_needless = |it: &&StoredKey| {
        let kept_by = it.kept.as_ref().map(|(key, _)| *key);
        it.is_retired && !it.is_current && kept_by == current
    };
    stored.iter().filter(is_needless).map(|it| it.key_id).collect()
}

/// How much is made with each key.
pub async fn uses(store: &Store) -> anyhow::Result<Vec<(StoredKey, KeyUse)>> {
    let stored = store.list_keys().await?;
    let uses = store.count_key_uses().await?;
    let of = |key: KeyId| uses.iter().find(|(id, _)| *id == key).map(|(_, it)| *it);
    Ok(stored
        .into_iter()
        .map(|key| {
            let it = of(key.key_id).unwrap_or_default();
            (key, it)
        })
        .collect())
}

async fn make_current(
    store: &Store,
    secret: &SecretKeys,
    key: KeyId,
    order: &Order<'_>,
    told: &mut (dyn FnMut(Progress) + Send),
) -> anyhow::Result<()> {
    wait_for_servers(store, key, order.patience, told).await?;
    let check_value = secret.now().check_value(key).context("the key is not in the file")?;
    // From here on a server begins nothing without its fingerprints by this key, and guards them.
    store.add_key(key, &check_value).await?;
    let stored = store.list_keys().await?;
    // Another change may have kept another key under this id.
    secret.follow(&stored)?;
    // What does not guard them has ended before any fingerprint is made by this key.
    wait_for_writers(store, told).await?;
    Ok(store.use_key(key, &order.by, order.reason).await?)
}

async fn wait_for_servers(
    store: &Store,
    key: KeyId,
    patience: Duration,
    told: &mut (dyn FnMut(Progress) + Send),
) -> anyhow::Result<()> {
    let end = Instant::now() + patience;
    let mut before = 0;
    loop {
        let lacking = store.servers_without_key(key).await?;
        if lacking == 0 {
            return Ok(());
        }
        if lacking != before {
            told(Progress::WaitsForServers(lacking));
        }
        before = lacking;
        ensure!(
            Instant::now() < end,
            "{lacking} servers have not read the secret key {key}: put it into the key file of every server, under the \
             same id, and begin again. Nothing was changed"
        );
        sleep(POLL).await;
    }
}

async fn wait_for_writers(
    store: &Store,
    told: &mut (dyn FnMut(Progress) + Send),
) -> anyhow::Result<()> {
    let mut writers = store.writers(None).await?;
    let mut before = 0;
    while !writers.is_empty() {
        sleep(POLL).await;
        writers = store.writers(Some(&writers)).await?;
        if !writers.is_empty() && writers.len() != before {
            told(Progress::WaitsForWriters(writers.len()));
        }
        before = writers.len();
    }
    Ok(())
}

/// What was encrypted anew so far.
struct Sealed<'a> {
    store: &'a Store,
    secret: &'a SecretKeys,
    key: KeyId,
    codes: i64,
    credentials: i64,
}

impl Sealed<'_> {
    /// Goes through everything until nothing is left. Rows that somebody holds are taken up the next time.
    async fn seal_all(&mut self, told: &mut (dyn FnMut(Progress) + Send)) -> anyhow::Result<()> {
        for _ in 0..PASSES {
            let codes = self.pass_over_codes(told).await?;
            let credentials = self.pass_over_credentials(told).await?;
            let secrets = self.pass_over_subscriptions(told).await?;
            let stored = self.store.list_keys().await?;
            ensure!(
                stored.iter().any(|it| it.key_id == self.key && it.is_current),
                "another secret key was made current meanwhile"
            );
            if codes + credentials + secrets == 0 {
                return Ok(());
            }
        }
        anyhow::bail!("somebody holds rows of redemptions or credentials for long: begin again")
    }

    /// Answers how many were found.
    async fn pass_over_codes(
        &mut self,
        told: &mut (dyn FnMut(Progress) + Send),
    ) -> anyhow::Result<usize> {
        let (mut found, mut after) = (0, (String::new(), String::new()));
        loop {
            let page = self.store.list_open_codes(self.key, (&after.0, &after.1)).await?;
            let Some(last) = page.last() else { return Ok(found) };
            after = (last.pool_id.to_string(), last.account_id.to_string());
            found += page.len();
            let sealed = page.into_iter().map(|it| self.code(it)).collect::<Result<Vec<_>, _>>()?;
            self.codes += self.store.reseal_codes(self.key, &sealed).await?;
            told(Progress::Codes(self.codes));
        }
    }

    fn code(&self, it: SealedCode) -> anyhow::Result<(SealedCode, Vec<u8>, Fingerprint)> {
        let context = code_context(&it.pool_id, it.redemption_id);
        let (code, facts) =
            self.secret.decrypt_with(&context, &it.code_ciphertext).with_context(|| {
                format!("the code of redemption {} of pool {}", it.redemption_id, it.pool_id)
            })?;
        let keys = self.secret.now();
        let fingerprint = keys.fingerprints(fingerprint_name(&it.provider_id), &code).newest();
        Ok((it, keys.encrypt_with(&context, &code, &facts), fingerprint))
    }

    /// Answers how many were found.
    async fn pass_over_credentials(
        &mut self,
        told: &mut (dyn FnMut(Progress) + Send),
    ) -> anyhow::Result<usize> {
        let (mut found, mut after) = (0, (String::new(), String::new()));
        loop {
            let page = self.store.list_credentials(self.key, (&after.0, &after.1)).await?;
            let Some(last) = page.last() else { return Ok(found) };
            after = (last.pool_id.to_string(), last.account_id.to_string());
            found += page.len();
            let sealed =
                page.into_iter().map(|it| self.credential(it)).collect::<Result<Vec<_>, _>>()?;
            self.credentials += self.store.reseal_credentials(&sealed).await?;
            told(Progress::Credentials(self.credentials));
        }
    }

    /// Answers how many were found. Their secrets count as credentials.
    async fn pass_over_subscriptions(
        &mut self,
        told: &mut (dyn FnMut(Progress) + Send),
    ) -> anyhow::Result<usize> {
        let (mut found, mut after) = (0, (String::new(), String::new()));
        loop {
            let page = self.store.list_subscription_secrets(self.key, (&after.0, &after.1)).await?;
            let Some(last) = page.last() else { return Ok(found) };
            after = (last.pool_id.to_string(), last.subscription_id.to_string());
            found += page.len();
            for it in page {
                let secret = self.subscription(&it, &it.secret)?;
                let before = it.secret_before.as_ref().map(|before| self.subscription(&it, before));
                let before = before.transpose()?;
                let written =
                    self.store.reseal_subscription_secrets(&it, &secret, before.as_deref()).await?;
                self.credentials += i64::from(written);
            }
            told(Progress::Credentials(self.credentials));
        }
    }

    fn subscription(&self, it: &SealedSubscription, sealed: &[u8]) -> anyhow::Result<Vec<u8>> {
        let context = subscriptions::context(&it.pool_id, &it.subscription_id);
        let opened = self.secret.decrypt_credentials(&context, sealed);
        let opened = opened.with_context(|| {
            format!("the secret of subscription {} of pool {}", it.subscription_id, it.pool_id)
        })?;
        Ok(self.secret.encrypt_credentials(&context, &opened))
    }

    fn credential(&self, it: SealedCredentials) -> anyhow::Result<(SealedCredentials, Vec<u8>)> {
        let context = account_values::context(&it.pool_id, &it.account_id);
        let opened = self.secret.decrypt_credentials(&context, &it.credentials);
        let opened = opened.with_context(|| {
            format!("the credentials of account {} of pool {}", it.account_id, it.pool_id)
        })?;
        let sealed = self.secret.encrypt_credentials(&context, &opened);
        Ok((it, sealed))
    }
}
