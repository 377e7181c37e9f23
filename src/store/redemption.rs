//! Redemptions: how they are read. What changes them is in [`begin`], [`outcome`] and `checks`.

pub mod begin;
mod checks;
pub mod correction;
pub mod outcome;
mod progress;
pub mod wake;

use time::OffsetDateTime;
use uuid::Uuid;

pub(super) use super::redemption_row::read_resolution;
use super::{
    Store, StoreError,
    page::{MAX_BYTES, read_page},
    patience::read_patiently,
    redemption_row::{read_request_id, read_state, redemption_row},
};
pub use crate::domain::redemption::{Redemption, Resolution};
use crate::domain::{
    id::{AccountId, BatchId, Holder, PoolId, RedemptionId, RequestId},
    page::Page,
    principal::{Principal, RequestKey},
    redemption::{Living, RedemptionFilter},
    secret_key::Fingerprints,
};

/// By how much the clock of a server, which makes the ids, may be off the database's while a list by time still
/// has all. It is far more than any that is kept.
const MAX_CLOCK_DIFFERENCE: time::Duration = time::Duration::days(1);

/// The ids that a redemption recorded in the filter's time can have: from `.0` to before `.1`.
fn ids_of(filter: &RedemptionFilter) -> (Uuid, Uuid) {
    let from = filter.created_from.map(|at| at.saturating_sub(MAX_CLOCK_DIFFERENCE));
    let to = filter.created_to.map(|at| at.saturating_add(MAX_CLOCK_DIFFERENCE));
    (from.map_or(Uuid::nil(), first_id_at), to.map_or(Uuid::max(), first_id_at))
}

/// Not after any id that is made at this time, and after all that were made a millisecond before.
fn first_id_at(at: OffsetDateTime) -> Uuid {
    let ms = (at.unix_timestamp_nanos() / 1_000_000).clamp(0, (1 << 48) - 1);
    Uuid::from_u128(ms.unsigned_abs() << 80)
}

redemption_row!(RedemptionRow {});
redemption_row!(ListedRow { more: bool });
redemption_row!(RequestRow { code_fingerprint: Vec<u8>, code_fingerprint_key: i32 });
impl Store {
    /// Reads a redemption.
    pub async fn get_redemption(
        &self,
        pool_id: &PoolId,
        redemption_id: RedemptionId,
    ) -> Result<Option<Redemption>, StoreError> {
        Ok(self.get_redemptions(pool_id, &[redemption_id.0]).await?.pop())
    }

    /// Reads redemptions; those that are not there are not in the answer.
    pub async fn get_redemptions(
        &self,
        pool_id: &PoolId,
        ids: &[Uuid],
    ) -> Result<Vec<Redemption>, StoreError> {
        let read = || {
            sqlx::query_file_as!(
                RedemptionRow,
                "src/store/sql/redemption/get_redemptions.sql",
                pool_id.as_str(),
                ids,
            )
            .fetch_all(&self.db)
        };
        read_patiently(read).await?.into_iter().map(|row| row.redemption(pool_id)).collect()
    }

    /// Reads those of the redemptions that have an outcome. Ones that cannot be read are left out.
    pub async fn get_outcomes(
        &self,
        pool_id: &PoolId,
        ids: &[Uuid],
    ) -> Result<Vec<Redemption>, StoreError> {
        let rows = sqlx::query_file_as!(
            RedemptionRow,
            "src/store/sql/redemption/get_outcomes.sql",
            pool_id.as_str(),
            ids,
        );
        let read = rows.fetch_all(&self.rest).await?.into_iter().map(|row| {
            let id = row.redemption_id;
            row.redemption(pool_id).inspect_err(|error| {
                tracing::warn!(%pool_id, redemption_id = %id, %error, "a redemption cannot be read");
            })
        });
        Ok(read.filter_map(Result::ok).collect())
    }

    /// Reads the redemption that stands for a request, with its code's fingerprint and the key that made it.
    pub async fn get_redemption_by_request(
        &self,
        pool_id: &PoolId,
        request: &RequestKey,
    ) -> Result<Option<(Redemption, i32, Vec<u8>)>, StoreError> {
        let request_ids = [request.request_id.to_string()];
        let read = || {
            sqlx::query_file_as!(
                RequestRow,
                "src/store/sql/redemption/get_redemptions_by_request.sql",
                pool_id.as_str(),
                &request_ids,
                request.principal.name(),
            )
            .fetch_optional(&self.db)
        };
        read_patiently(read)
            .await?
            .map(|mut row| {
                let fingerprint = std::mem::take(&mut row.code_fingerprint);
                let key = row.code_fingerprint_key;
                Ok((row.redemption(pool_id)?, key, fingerprint))
            })
            .transpose()
    }

    /// The redemption that has the code of these fingerprints, if any has.
    pub async fn get_living_redemption(
        &self,
        pool_id: &PoolId,
        code_fingerprints: &Fingerprints,
    ) -> Result<Option<Living>, StoreError> {
        let all: Vec<_> = code_fingerprints.all.iter().map(|(_, it)| it.to_vec()).collect();
        let read = || {
            sqlx::query_file!(
                "src/store/sql/redemption/get_living_redemption.sql",
                pool_id.as_str(),
                &all,
            )
            .fetch_optional(&self.db)
        };
        let Some(row) = read_patiently(read).await? else { return Ok(None) };
        Ok(Some(Living {
            redemption_id: RedemptionId(row.redemption_id),
            request: RequestKey::new(
                Principal::named(&row.principal),
                read_request_id(&row.request_id)?,
            ),
            state: read_state(&row.state)?,
        }))
    }

    /// Reads a redemption's code, encrypted; `None` when it is settled or not there.
    pub async fn get_code(
        &self,
        pool_id: &PoolId,
        redemption_id: RedemptionId,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let found = sqlx::query_file_scalar!(
            "src/store/sql/redemption/get_code.sql",
            pool_id.as_str(),
            redemption_id.0,
        )
        .fetch_optional(&self.db)
        .await?;
        Ok(found.flatten())
    }

    /// Lists the redemptions of a pool before `before` (exclusive), newest first, at most `limit`.
    pub async fn list_redemptions(
        &self,
        pool_id: &PoolId,
        filter: &RedemptionFilter,
        before: RedemptionId,
        limit: i64,
    ) -> Result<Page<Redemption>, StoreError> {
        let states: Vec<_> = filter.states.iter().map(|s| s.as_str().to_owned()).collect();
        let reversals: Vec<_> =
            filter.reversal_states.iter().map(|s| s.as_str().to_owned()).collect();
        let request = filter.request_id.as_ref().map(RequestId::range_of_one);
        let range = filter.batch_id.as_ref().map(RequestId::range_of_batch).or(request);
        let (first, end) = ids_of(filter);
        let rows = sqlx::query_file_as!(
            ListedRow,
            "src/store/sql/redemption/list_redemptions.sql",
            pool_id.as_str(),
            before.0.min(end),
            limit,
            (!states.is_empty()).then_some(&states[..]),
            filter.account_id.as_ref().map(AccountId::as_str),
            range.as_ref().map(|(from, _)| from.as_str()),
            range.as_ref().map(|(_, to)| to.as_str()),
            filter.created_from,
            filter.created_to,
            first,
            MAX_BYTES,
            (!reversals.is_empty()).then_some(&reversals[..]),
            filter.readable_by.as_ref().map(Principal::name),
            filter.failure_reason.as_deref(),
            filter.holder.as_ref().map(Holder::as_str),
            filter.code_last4.as_deref(),
        );
        let found = rows.fetch_all(&self.rest).await?;
        read_page(found, limit, |row| row.more, |row| row.redemption(pool_id))
    }

    /// Whether any item of a principal's batch was begun.
    pub async fn batch_exists(
        &self,
        pool_id: &PoolId,
        batch_id: &BatchId,
        principal: &Principal,
    ) -> Result<bool, StoreError> {
        let (from, to) = RequestId::range_of_batch(batch_id);
        Ok(sqlx::query_file_scalar!(
            "src/store/sql/redemption/batch_exists.sql",
            pool_id.as_str(),
            from,
            to,
            principal.name(),
        )
        .fetch_one(&self.db)
        .await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ids_of_a_time_hold_every_id_that_was_made_in_it() {
        let now = OffsetDateTime::now_utc();
        let id = Uuid::now_v7();
        let filter = |from, to| RedemptionFilter {
            created_from: Some(from),
            created_to: Some(to),
            ..Default::default()
        };
        let second = time::Duration::SECOND;
        let off = MAX_CLOCK_DIFFERENCE - second * 2;
        for clock in [now, now - off, now + off] {
            let (first, end) = ids_of(&filter(clock - second, clock + second));
            assert!(first <= id && id < end, "{clock}");
        }
        for far in [now - off - second * 6, now + off + second * 6] {
            let (first, end) = ids_of(&filter(far - second, far + second));
            assert!(id < first || end <= id, "{far}");
        }
        assert_eq!(ids_of(&RedemptionFilter::default()), (Uuid::nil(), Uuid::max()));
    }
}
