//! Accounts' credentials, as they are stored, and what else of an account a request to a provider can have.

use serde_json::json;

use super::{
    Store, StoreError,
    account::{Labels, read_labels},
    audit::{self, Written},
    patience::read_patiently,
};
use crate::domain::{
    id::{AccountId, PoolId},
    principal::Authority,
};

/// What a profile's templates can name of an account.
#[derive(Debug)]
pub struct AccountValues {
    /// ISO 3166-1 alpha-2.
    pub country_code: Option<String>,
    /// For selectors.
    pub labels: Labels,
    /// Encrypted; `None` when it has none.
    pub credentials: Option<Vec<u8>>,
}

impl Store {
    /// Keeps an account's credentials, in the place of those that are there; `None` removes them. May run twice: the
    /// second time changes nothing.
    pub async fn set_credentials(
        &self,
        pool_id: &PoolId,
        account_id: &AccountId,
        credentials: Option<&[u8]>,
        by: &Authority,
    ) -> Result<(), StoreError> {
        let (pool_id, account_id) = (pool_id.as_str(), account_id.as_str());
        let (done, what) = match credentials {
            Some(credentials) => {
                let done = sqlx::query_file!(
                    "src/store/sql/account/set_credentials.sql",
                    pool_id,
                    account_id,
                    credentials,
                    by.principal.name(),
                    by.peer(),
                )
                .execute(&self.rest)
                .await?;
                (done, "set")
            }
            None => {
                let done = sqlx::query_file!(
                    "src/store/sql/account/remove_credentials.sql",
                    pool_id,
                    account_id,
                    by.principal.name(),
                    by.peer(),
                )
                .execute(&self.rest)
                .await?;
                (done, "removed")
            }
        };
        if done.rows_affected() > 0 {
            let (action, subject, reason) = ("UpdateAccount", account_id, "");
            let (before, after) = (None, Some(json!({ "credentials": what })));
            audit::log_written(by, &Written { action, pool_id, subject, before, after, reason });
        }
        Ok(())
    }

    /// Reads what a request to a provider can have of an account; `None` when there is no such account.
    pub async fn get_account_values(
        &self,
        pool_id: &PoolId,
        account_id: &AccountId,
    ) -> Result<Option<AccountValues>, StoreError> {
        let read = || {
            sqlx::query_file!(
                "src/store/sql/account/get_account_values.sql",
                pool_id.as_str(),
                account_id.as_str()
            )
            .fetch_optional(&self.db)
        };
        Ok(read_patiently(read).await?.map(|row| AccountValues {
            country_code: row.country_code,
            labels: read_labels(&row.labels),
            credentials: row.credentials,
        }))
    }
}
