//! Secret keys: which is current, what is encrypted with which, and changing to another.

use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use super::{
    Store, StoreError,
    audit::{self, Written},
    interval,
};
use crate::domain::{
    id::{AccountId, PoolId, ProviderId, RedemptionId, SubscriptionId},
    principal::Authority,
    secret_key::{Fingerprint, KeyId, StoredKey},
};

/// A server that has not beaten for so long is not waited for.
const LIVES: Duration = Duration::from_secs(10);
/// How many rows are encrypted anew at once.
pub const PAGE: i64 = 500;
/// How many redemptions are counted at once.
const COUNTED: i64 = 50_000;

/// The secrets of a subscription, encrypted.
#[derive(Clone, Debug)]
pub struct SealedSubscription {
    /// Its pool.
    pub pool_id: PoolId,
    /// The subscription.
    pub subscription_id: SubscriptionId,
    /// The secret.
    pub secret: Vec<u8>,
    /// The one before, while it signs too.
    pub secret_before: Option<Vec<u8>>,
}

/// A code of an open redemption, encrypted.
#[derive(Clone, Debug)]
pub struct SealedCode {
    /// The redemption's pool.
    pub pool_id: PoolId,
    /// Its account: it has one open redemption.
    pub account_id: AccountId,
    /// The redemption.
    pub redemption_id: RedemptionId,
    /// Its provider.
    pub provider_id: ProviderId,
    /// The code.
    pub code_ciphertext: Vec<u8>,
}

/// An account's credentials, encrypted.
#[derive(Clone, Debug)]
pub struct SealedCredentials {
    /// The account's pool.
    pub pool_id: PoolId,
    /// The account.
    pub account_id: AccountId,
    /// Its credentials.
    pub credentials: Vec<u8>,
}

/// How much is made with a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyUse {
    /// Codes of open redemptions, encrypted.
    pub codes: i64,
    /// Credentials of accounts, encrypted.
    pub credentials: i64,
    /// Fingerprints of codes.
    pub fingerprints: i64,
}

impl Store {
    /// Keeps the check value of a key, where there is none of any yet.
    pub async fn install_key(&self, key: KeyId, check_value: &[u8]) -> Result<(), StoreError> {
        sqlx::query_file!("src/store/sql/key/install.sql", key.number(), check_value)
            .execute(&self.db)
            .await?;
        Ok(())
    }

    /// The secret keys, as far as the database has them.
    pub async fn list_keys(&self) -> Result<Vec<StoredKey>, StoreError> {
        let rows = sqlx::query_file!("src/store/sql/key/list_keys.sql").fetch_all(&self.db).await?;
        rows.into_iter()
            .map(|row| {
                let kept = row.kept_by.map(read_key).transpose()?.zip(row.kept);
                Ok(StoredKey {
                    key_id: read_key(row.key_id)?,
                    check_value: row.key_check,
                    is_current: row.is_current,
                    is_retired: row.is_retired,
                    kept,
                })
            })
            .collect()
    }

    /// Notes which keys this server has read.
    pub async fn note_keys(&self, keys: &[KeyId]) -> Result<(), StoreError> {
        let keys: Vec<_> = keys.iter().map(|key| key.number()).collect();
        sqlx::query_file!("src/store/sql/key/note_keys.sql", self.server_id, &keys)
            .execute(&self.db)
            .await?;
        Ok(())
    }

    /// How many servers that live have not read a key.
    pub async fn servers_without_key(&self, key: KeyId) -> Result<i64, StoreError> {
        let count = sqlx::query_file_scalar!(
            "src/store/sql/key/servers_without_key.sql",
            key.number(),
            interval(LIVES)
        );
        Ok(count.fetch_one(&self.db).await?)
    }

    /// Keeps the check value of a key that is to become current. May be repeated.
    pub async fn add_key(&self, key: KeyId, check_value: &[u8]) -> Result<(), StoreError> {
        sqlx::query_file!("src/store/sql/key/insert_key.sql", key.number(), check_value)
            .execute(&self.db)
            .await?;
        sqlx::query_file!("src/store/sql/key/unretire_key.sql", key.number())
            .execute(&self.db)
            .await?;
        Ok(())
    }

    /// Makes a key the current one, and records who did. May be repeated: it is recorded once.
    pub async fn use_key(
        &self,
        key: KeyId,
        by: &Authority,
        reason: &str,
    ) -> Result<(), StoreError> {
        let used = sqlx::query_file_scalar!(
            "src/store/sql/key/use_key.sql",
            key.number(),
            by.principal.name(),
            by.peer(),
            reason,
        );
        let Some(before) = used.fetch_optional(&self.db).await? else { return Ok(()) };
        let written = Written {
            action: "RotateKeys",
            pool_id: "",
            subject: &key.to_string(),
            before: Some(json!({ "key_id": before })),
            after: Some(json!({ "key_id": key.number() })),
            reason,
        };
        audit::log_written(by, &written);
        Ok(())
    }

    /// The transactions that write redemptions or credentials now: all, or those `of` these.
    pub async fn writers(&self, of: Option<&[String]>) -> Result<Vec<String>, StoreError> {
        let found = sqlx::query_file_scalar!("src/store/sql/key/list_writers.sql", of);
        Ok(found.fetch_all(&self.db).await?)
    }

    /// Codes that are not of this key, of accounts after `after`.
    pub async fn list_open_codes(
        &self,
        key: KeyId,
        after: (&str, &str),
    ) -> Result<Vec<SealedCode>, StoreError> {
        let rows = sqlx::query_file!(
            "src/store/sql/key/list_open_codes.sql",
            after.0,
            after.1,
            key.number(),
            PAGE
        );
        let read = |_| StoreError::Unreadable("a redemption's pool, account or provider");
        rows.fetch_all(&self.db)
            .await?
            .into_iter()
            .map(|row| {
                Ok(SealedCode {
                    pool_id: PoolId::parse(&row.pool_id).map_err(read)?,
                    account_id: AccountId::stored(&row.account_id).map_err(read)?,
                    redemption_id: RedemptionId(row.redemption_id),
                    provider_id: ProviderId::parse(&row.provider_id).map_err(read)?,
                    code_ciphertext: row.code_ciphertext,
                })
            })
            .collect()
    }

    /// Keeps codes under another key, each with its new ciphertext and fingerprint. Answers how many.
    pub async fn reseal_codes(
        &self,
        key: KeyId,
        codes: &[(SealedCode, Vec<u8>, Fingerprint)],
    ) -> Result<i64, StoreError> {
        let written = sqlx::query_file_scalar!(
            "src/store/sql/key/reseal_codes.sql",
            key.number(),
            &codes.iter().map(|(code, ..)| code.pool_id.to_string()).collect::<Vec<_>>(),
            &codes.iter().map(|(code, ..)| code.redemption_id.0).collect::<Vec<_>>(),
            &codes.iter().map(|(code, ..)| code.code_ciphertext.clone()).collect::<Vec<_>>(),
            &codes.iter().map(|(_, sealed, _)| sealed.clone()).collect::<Vec<_>>(),
            &codes.iter().map(|(.., print)| print.to_vec()).collect::<Vec<_>>(),
        );
        Ok(written.fetch_one(&self.db).await?)
    }

    /// Credentials that are not of this key, of accounts after `after`.
    pub async fn list_credentials(
        &self,
        key: KeyId,
        after: (&str, &str),
    ) -> Result<Vec<SealedCredentials>, StoreError> {
        let rows = sqlx::query_file!(
            "src/store/sql/key/list_credentials.sql",
            after.0,
            after.1,
            key.number(),
            PAGE
        );
        let read = |_| StoreError::Unreadable("a pool or account of credentials");
        rows.fetch_all(&self.db)
            .await?
            .into_iter()
            .map(|row| {
                Ok(SealedCredentials {
                    pool_id: PoolId::parse(&row.pool_id).map_err(read)?,
                    account_id: AccountId::stored(&row.account_id).map_err(read)?,
                    credentials: row.credentials,
                })
            })
            .collect()
    }

    /// Keeps credentials under another key, each with its new ciphertext. Answers how many.
    pub async fn reseal_credentials(
        &self,
        credentials: &[(SealedCredentials, Vec<u8>)],
    ) -> Result<i64, StoreError> {
        let written = sqlx::query_file_scalar!(
            "src/store/sql/key/reseal_credentials.sql",
            &credentials.iter().map(|(it, _)| it.pool_id.to_string()).collect::<Vec<_>>(),
            &credentials.iter().map(|(it, _)| it.account_id.to_string()).collect::<Vec<_>>(),
            &credentials.iter().map(|(it, _)| it.credentials.clone()).collect::<Vec<_>>(),
            &credentials.iter().map(|(_, sealed)| sealed.clone()).collect::<Vec<_>>(),
        );
        Ok(written.fetch_one(&self.db).await?)
    }

    /// Subscriptions whose secrets are encrypted with another key than this one, after one of them.
    pub async fn list_subscription_secrets(
        &self,
        key: KeyId,
        after: (&str, &str),
    ) -> Result<Vec<SealedSubscription>, StoreError> {
        let rows = sqlx::query_file!(
            "src/store/sql/key/list_subscription_secrets.sql",
            after.0,
            after.1,
            key.number(),
            PAGE
        );
        let read = |_| StoreError::Unreadable("a pool or name of a subscription");
        let rows = rows.fetch_all(&self.db).await?.into_iter();
        rows.map(|row| {
            Ok(SealedSubscription {
                pool_id: PoolId::parse(&row.pool_id).map_err(read)?,
                subscription_id: SubscriptionId::parse(&row.subscription_id).map_err(read)?,
                secret: row.secret,
                secret_before: row.secret_before,
            })
        })
        .collect()
    }

    /// Keeps a subscription's secrets under another key. Answers whether they were as they are given.
    pub async fn reseal_subscription_secrets(
        &self,
        was: &SealedSubscription,
        secret: &[u8],
        secret_before: Option<&[u8]>,
    ) -> Result<bool, StoreError> {
        let written = sqlx::query_file_scalar!(
            "src/store/sql/key/reseal_subscription_secrets.sql",
            was.pool_id.as_str(),
            was.subscription_id.as_str(),
            was.secret,
            was.secret_before.as_deref(),
            secret,
            secret_before,
        );
        Ok(written.fetch_optional(&self.db).await?.is_some())
    }

    /// Notes that nothing is encrypted with other keys than the current one, which keeps what they made fingerprints with.
    pub async fn retire_keys(
        &self,
        current: KeyId,
        others: &[(KeyId, Vec<u8>)],
    ) -> Result<(), StoreError> {
        let ids: Vec<_> = others.iter().map(|(key, _)| key.number()).collect();
        let kept: Vec<_> = others.iter().map(|(_, kept)| kept.clone()).collect();
        sqlx::query_file!("src/store/sql/key/retire_keys.sql", current.number(), &ids, &kept)
            .execute(&self.db)
            .await?;
        Ok(())
    }

    /// How much is made with each key.
    pub async fn count_key_uses(&self) -> Result<Vec<(KeyId, KeyUse)>, StoreError> {
        let mut uses = std::collections::BTreeMap::<KeyId, KeyUse>::new();
        let sealed = sqlx::query_file!("src/store/sql/key/count_sealed.sql");
        for row in sealed.fetch_all(&self.db).await? {
            let it = uses.entry(read_key(row.key_id)?).or_default();
            (it.codes, it.credentials) = (row.codes, row.credentials);
        }
        let mut after = (String::new(), Uuid::nil());
        loop {
            let page = sqlx::query_file!(
                "src/store/sql/key/count_fingerprints.sql",
                &after.0,
                after.1,
                COUNTED
            )
            .fetch_all(&self.db)
            .await?;
            let Some(last) = page.first() else { break };
            after = (last.last_pool_id.clone(), last.last_redemption_id);
            for row in page {
                uses.entry(read_key(row.key_id)?).or_default().fingerprints += row.count;
            }
        }
        Ok(uses.into_iter().collect())
    }
}

fn read_key(number: i32) -> Result<KeyId, StoreError> {
    KeyId::from_number(number).ok_or(StoreError::Unreadable("a secret key's id"))
}
