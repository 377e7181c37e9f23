//! Wake: which open redemption a provider's call is about.

use uuid::Uuid;

use crate::{
    domain::id::{PoolId, ProviderId, RedemptionId},
    store::{Store, StoreError},
};

/// A redemption whose outcome is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenRedemption {
    /// Its pool.
    pub pool_id: PoolId,
    /// Its id.
    pub redemption_id: RedemptionId,
    /// Whether a server asks about it now.
    pub is_held: bool,
}

struct OpenRow {
    pool_id: String,
    redemption_id: Uuid,
    is_held: Option<bool>,
}

impl OpenRow {
    fn read(self) -> Result<OpenRedemption, StoreError> {
        let pool_id = PoolId::parse(&self.pool_id)
            .map_err(|_| StoreError::Unreadable("redemptions.pool_id"))?;
        let redemption_id = RedemptionId(self.redemption_id);
        Ok(OpenRedemption { pool_id, redemption_id, is_held: self.is_held.unwrap_or(false) })
    }
}

impl Store {
    /// The redemption that has a key which is shorter than its id.
    pub async fn get_id_of_key(
        &self,
        provider_id: &ProviderId,
        key: &str,
    ) -> Result<Option<RedemptionId>, StoreError> {
        let id = sqlx::query_file_scalar!(
            "src/store/sql/redemption/get_id_of_key.sql",
            provider_id.as_str(),
            key,
        );
        Ok(id.fetch_optional(&self.rest).await?.map(RedemptionId))
    }

    /// A provider's open redemption by its id, in whatever pool.
    pub async fn find_open_by_id(
        &self,
        provider_id: &ProviderId,
        redemption_id: RedemptionId,
    ) -> Result<Option<OpenRedemption>, StoreError> {
        let found = sqlx::query_file_as!(
            OpenRow,
            "src/store/sql/redemption/find_open_by_id.sql",
            provider_id.as_str(),
            redemption_id.0,
        );
        found.fetch_optional(&self.rest).await?.map(OpenRow::read).transpose()
    }

    /// The same by the provider's id of its work.
    pub async fn find_open_by_task(
        &self,
        provider_id: &ProviderId,
        task: &str,
    ) -> Result<Option<OpenRedemption>, StoreError> {
        let found = sqlx::query_file_as!(
            OpenRow,
            "src/store/sql/redemption/find_open_by_task.sql",
            provider_id.as_str(),
            task,
        );
        found.fetch_optional(&self.rest).await?.map(OpenRow::read).transpose()
    }
}
