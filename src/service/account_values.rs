//! What a request to a provider can have of an account, credentials among them.

use crate::{
    domain::{
        credentials::Credentials,
        id::{AccountId, PoolId},
        redemption::AccountFacts,
    },
    secret::SecretKeys,
    store::{Store, StoreError},
};

/// Why an account's values cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum NoValues {
    /// There is no such account.
    #[error("the account is not there any more")]
    NoAccount,
    /// Its credentials are another account's, were encrypted with another key, or are damaged. Trying again does not help.
    #[error("the account's stored credentials cannot be decrypted")]
    Undecryptable,
    /// The database did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Reads an account's values, and decrypts its credentials.
///
/// # Errors
/// See [`NoValues`].
pub async fn account_values(
    store: &Store,
    secret: &SecretKeys,
    pool_id: &PoolId,
    account_id: &AccountId,
) -> Result<AccountFacts, NoValues> {
    let stored = store.get_account_values(pool_id, account_id).await?;
    let stored = stored.ok_or(NoValues::NoAccount)?;
    let open = |sealed: Vec<u8>| secret.decrypt_credentials(&context(pool_id, account_id), &sealed);
    let credentials = stored.credentials.map(open).transpose();
    let credentials = credentials.map_err(|_| NoValues::Undecryptable)?.unwrap_or_default();
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    Ok(AccountFacts {
        country: stored.country_code,
        labels: stored.labels,
        credentials: credentials.expose().map(owned).collect(),
    })
}

/// An account's credentials as they are stored; `None` when there are none.
pub(super) fn encrypted(
    secret: &SecretKeys,
    pool_id: &PoolId,
    account_id: &AccountId,
    credentials: &Credentials,
) -> Option<Vec<u8>> {
    let seal = || secret.encrypt_credentials(&context(pool_id, account_id), credentials);
    (!credentials.is_empty()).then(seal)
}

/// What binds credentials to their account. No pool's name has `/`, so it is that of no other account, nor of a code.
pub(super) fn context(pool_id: &PoolId, account_id: &AccountId) -> Vec<u8> {
    format!("credentials/{pool_id}/{account_id}").into_bytes()
}
