//! Redemptions: how they are stored and read. What changes them is in
//! [`super::begin`] and [`super::outcome`].

pub mod begin;
pub mod outcome;

use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Store, StoreError,
    account::read_plan_id,
    interval,
    lane::{at_points, read_patiently},
    page::{MAX_BYTES, read_page},
    quarantine::{Done, Rows, Statement, count_skipped},
};
pub use crate::domain::redemption::Resolution;
use crate::{
    domain::{
        id::{AccountId, BatchId, Holder, PlanId, PoolId, RedemptionId, RequestId},
        money::{Currency, Money},
        page::Page,
        redemption::{Failure, Living, Redemption, RedemptionFilter, RedemptionState},
    },
    failpoints::Step,
};

/// A redemption that is the caller's to check.
#[derive(Clone, Debug)]
pub struct DueCheck {
    /// The redemption.
    pub redemption: Redemption,
    /// Its code, encrypted.
    pub code_ciphertext: Vec<u8>,
    /// The provider is not to begin after this time.
    pub not_after: OffsetDateTime,
    /// Checks so far, this one included.
    pub checks: i32,
    /// How many checks before this one, in a row, found the provider without the key.
    pub not_found_checks: i32,
    /// The database's time.
    pub db_now: OffsetDateTime,
}

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

/// Declares the row of a statement that answers with redemptions: the columns that all of them
/// share, and those of its own.
macro_rules! redemption_row {
    ($name:ident { $($own:ident: $type:ty),* }) => {
        pub(super) struct $name {
            $(pub(super) $own: $type,)*
            pub(super) redemption_id: uuid::Uuid,
            pub(super) account_id: String,
            pub(super) fencing_token: i64,
            pub(super) request_id: String,
            pub(super) holder: String,
            pub(super) state: String,
            pub(super) code_last4: String,
            pub(super) expected_minor: Option<i64>,
            pub(super) expected_learned: bool,
            pub(super) release_on_completion: bool,
            pub(super) plan_id: Option<String>,
            pub(super) plan_day: Option<i32>,
            pub(super) amount_minor: Option<i64>,
            pub(super) amount_currency: Option<String>,
            pub(super) provider_ref: Option<String>,
            pub(super) failure_reason: Option<String>,
            pub(super) failure_message: Option<String>,
            pub(super) code_spent: Option<bool>,
            pub(super) resolved_by: Option<String>,
            pub(super) resolution_reason: Option<String>,
            pub(super) resolution_evidence: Option<String>,
            pub(super) attempts: i32,
            pub(super) last_answer: Option<String>,
            pub(super) next_check_at: Option<time::OffsetDateTime>,
            pub(super) created_at: time::OffsetDateTime,
            pub(super) finished_at: Option<time::OffsetDateTime>,
        }

        impl $name {
            pub(super) fn redemption(
                self,
                pool_id: &$crate::domain::id::PoolId,
            ) -> Result<$crate::domain::redemption::Redemption, $crate::store::StoreError> {
                use $crate::store::redemption as stored;
                Ok($crate::domain::redemption::Redemption {
                    redemption_id: $crate::domain::id::RedemptionId(self.redemption_id),
                    request_id: stored::read_request_id(&self.request_id)?,
                    pool_id: pool_id.clone(),
                    account_id: $crate::store::account::read_account_id(&self.account_id)?,
                    token: $crate::domain::id::FencingToken(self.fencing_token),
                    holder: stored::read_holder(&self.holder)?,
                    state: stored::read_state(&self.state)?,
                    code_last4: self.code_last4,
                    expected_minor: self.expected_minor,
                    expected_learned: self.expected_learned,
                    release_on_completion: self.release_on_completion,
                    begun_on: $crate::store::redemption::read_begun_on(
                        self.plan_id.as_deref(),
                        self.plan_day,
                    )?,
                    amount: stored::read_amount(self.amount_minor, self.amount_currency.as_deref())?,
                    provider_ref: self.provider_ref,
                    failure: stored::read_failure(
                        self.failure_reason,
                        self.failure_message,
                        self.code_spent,
                    ),
                    resolution: stored::read_resolution(
                        self.resolved_by,
                        self.resolution_reason,
                        self.resolution_evidence,
                    ),
                    attempts: self.attempts,
                    last_answer: self.last_answer,
                    next_check_at: self.next_check_at,
                    created_at: self.created_at,
                    finished_at: self.finished_at,
                })
            }
        }
    };
}
pub(super) use redemption_row;

redemption_row!(RedemptionRow {});
redemption_row!(ListedRow { more: bool });
redemption_row!(RequestRow { code_fingerprint: Vec<u8> });
redemption_row!(DueRow {
    code_ciphertext: Vec<u8>,
    not_after: OffsetDateTime,
    checks: i32,
    not_found_checks: i32,
    db_now: OffsetDateTime
});

pub(super) fn read_request_id(text: &str) -> Result<RequestId, StoreError> {
    RequestId::parse_any(text).map_err(|_| StoreError::Unreadable("redemptions.request_id"))
}

pub(super) fn read_holder(text: &str) -> Result<Holder, StoreError> {
    Holder::parse(text).map_err(|_| StoreError::Unreadable("redemptions.holder"))
}

pub(super) fn read_state(text: &str) -> Result<RedemptionState, StoreError> {
    RedemptionState::parse(text).ok_or(StoreError::Unreadable("redemptions.state"))
}

pub(super) fn read_begun_on(
    plan_id: Option<&str>,
    day: Option<i32>,
) -> Result<Option<(PlanId, i32)>, StoreError> {
    let Some((plan_id, day)) = plan_id.zip(day) else { return Ok(None) };
    Ok(Some((read_plan_id(plan_id)?, day)))
}

pub(super) fn read_amount(
    amount_minor: Option<i64>,
    currency: Option<&str>,
) -> Result<Option<Money>, StoreError> {
    let Some((amount_minor, code)) = amount_minor.zip(currency) else { return Ok(None) };
    let currency =
        Currency::parse(code).ok_or(StoreError::Unreadable("redemptions.amount_currency"))?;
    Ok(Some(Money { amount_minor, currency }))
}

pub(super) fn read_failure(
    reason: Option<String>,
    message: Option<String>,
    code_spent: Option<bool>,
) -> Option<Failure> {
    reason.map(|reason| Failure {
        reason,
        message: message.unwrap_or_default(),
        code_spent: code_spent.unwrap_or(false),
    })
}

pub(super) fn read_resolution(
    resolved_by: Option<String>,
    reason: Option<String>,
    evidence: Option<String>,
) -> Option<Resolution> {
    let (resolved_by, reason) = resolved_by.zip(reason)?;
    Some(Resolution { resolved_by, reason, evidence })
}

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
                "src/store/sql/get_redemptions.sql",
                pool_id.as_str(),
                ids,
            )
            .fetch_all(&self.db)
        };
        read_patiently(read).await?.into_iter().map(|row| row.redemption(pool_id)).collect()
    }

    /// Reads the redemption that stands for a request, with its code's fingerprint.
    pub async fn get_redemption_by_request(
        &self,
        pool_id: &PoolId,
        request_id: &RequestId,
    ) -> Result<Option<(Redemption, Vec<u8>)>, StoreError> {
        let request_ids = [request_id.to_string()];
        let read = || {
            sqlx::query_file_as!(
                RequestRow,
                "src/store/sql/get_redemptions_by_request.sql",
                pool_id.as_str(),
                &request_ids,
            )
            .fetch_optional(&self.db)
        };
        read_patiently(read)
            .await?
            .map(|mut row| {
                let fingerprint = std::mem::take(&mut row.code_fingerprint);
                Ok((row.redemption(pool_id)?, fingerprint))
            })
            .transpose()
    }

    /// The redemption that has the code of this fingerprint, if any has.
    pub async fn get_living_redemption(
        &self,
        pool_id: &PoolId,
        code_fingerprint: &[u8; 32],
    ) -> Result<Option<Living>, StoreError> {
        let read = || {
            sqlx::query_file!(
                "src/store/sql/get_living_redemption.sql",
                pool_id.as_str(),
                &code_fingerprint[..],
            )
            .fetch_optional(&self.db)
        };
        let Some(row) = read_patiently(read).await? else { return Ok(None) };
        Ok(Some(Living {
            redemption_id: RedemptionId(row.redemption_id),
            request_id: read_request_id(&row.request_id)?,
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
            "src/store/sql/get_code.sql",
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
        let range = filter.batch_id.as_ref().map(RequestId::range_of_batch);
        let (first, end) = ids_of(filter);
        let rows = sqlx::query_file_as!(
            ListedRow,
            "src/store/sql/list_redemptions.sql",
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
        );
        let found = rows.fetch_all(&self.rest).await?;
        read_page(found, limit, |row| row.more, |row| row.redemption(pool_id))
    }

    /// Whether any item of a batch was begun.
    pub async fn batch_exists(
        &self,
        pool_id: &PoolId,
        batch_id: &BatchId,
    ) -> Result<bool, StoreError> {
        let (from, to) = RequestId::range_of_batch(batch_id);
        Ok(sqlx::query_file_scalar!("src/store/sql/batch_exists.sql", pool_id.as_str(), from, to,)
            .fetch_one(&self.db)
            .await?)
    }

    /// Takes redemptions of a pool whose check became due `within` this time, or at any time, at most
    /// `limit`, for as long as `hold`. One that cannot be written is left out, and does not hold up the others.
    pub async fn claim_checks(
        &self,
        pool_id: &PoolId,
        within: Option<std::time::Duration>,
        limit: i64,
        hold: std::time::Duration,
    ) -> Result<Done<DueCheck>, StoreError> {
        let claim = |rows: Rows| async move {
            let ids: Vec<_> = rows.ids.iter().filter_map(|id| Uuid::parse_str(id).ok()).collect();
            let claim = sqlx::query_file_as!(
                DueRow,
                "src/store/sql/claim_checks.sql",
                pool_id.as_str(),
                limit,
                interval(hold),
                within.map(interval) as _,
                &ids,
                rows.only,
            );
            at_points(Step::Claim, claim.fetch_all(&self.db)).await
        };
        let list = |limit: i64| async move {
            let due = sqlx::query_file_scalar!(
                "src/store/sql/list_due_checks.sql",
                pool_id.as_str(),
                limit,
            );
            Ok(due.fetch_all(&self.db).await?.iter().map(Uuid::to_string).collect())
        };
        let statement = Statement::ClaimChecks;
        let claimed = self.quarantine.run(statement, pool_id, limit, claim, list).await?;
        // One that cannot be read must not keep its neighbours from being checked.
        let read = |row: DueRow| {
            let id = row.redemption_id;
            row.due(pool_id)
                .inspect_err(|error| {
                    count_skipped("claim_checks");
                    tracing::error!(%pool_id, redemption_id = %id, %error, "a redemption in doubt cannot be read");
                })
                .ok()
        };
        let rows = claimed.rows.into_iter().filter_map(read).collect();
        Ok(Done { rows, may_be_more: claimed.may_be_more })
    }
}

impl DueRow {
    fn due(mut self, pool_id: &PoolId) -> Result<DueCheck, StoreError> {
        Ok(DueCheck {
            code_ciphertext: std::mem::take(&mut self.code_ciphertext),
            not_after: self.not_after,
            checks: self.checks,
            not_found_checks: self.not_found_checks,
            db_now: self.db_now,
            redemption: self.redemption(pool_id)?,
        })
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
