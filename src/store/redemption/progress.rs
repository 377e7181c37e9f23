//! Progress: what is recorded of a redemption while it is being sent, or sent again.

use crate::{
    domain::id::{PoolId, ProviderId, RedemptionId},
    failpoints::Step,
    store::{Store, StoreError, points::at_points},
};

impl Store {
    /// Keeps the provider's id of its work, and answers with the one that is kept: the first. `None`: the redemption
    /// is settled.
    pub async fn record_task(
        &self,
        pool_id: &PoolId,
        redemption_id: RedemptionId,
        task: &str,
    ) -> Result<Option<String>, StoreError> {
        let record = sqlx::query_file_scalar!(
            "src/store/sql/redemption/record_task.sql",
            pool_id.as_str(),
            redemption_id.0,
            task,
        );
        Ok(at_points(Step::RecordTask, record.fetch_optional(&self.db)).await?)
    }

    /// Notes that a redemption is about to be sent again by its `checks`th check. False: it is not to be, because
    /// another server checks it by now or it is settled.
    pub async fn note_send(
        &self,
        pool_id: &PoolId,
        redemption_id: RedemptionId,
        checks: i32,
    ) -> Result<bool, StoreError> {
        let note = sqlx::query_file_scalar!(
            "src/store/sql/redemption/note_send.sql",
            pool_id.as_str(),
            redemption_id.0,
            checks,
        );
        Ok(at_points(Step::NoteSend, note.fetch_optional(&self.db)).await?.is_some())
    }

    /// Takes a key of a provider for a redemption. False: another redemption has it.
    pub async fn reserve_key(
        &self,
        provider_id: &ProviderId,
        key: &str,
        redemption_id: RedemptionId,
    ) -> Result<bool, StoreError> {
        let taken = sqlx::query_file_scalar!(
            "src/store/sql/redemption/reserve_key.sql",
            provider_id.as_str(),
            key,
            redemption_id.0,
        );
        Ok(taken.fetch_optional(&self.db).await?.is_some())
    }
}
