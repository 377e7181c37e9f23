//! What is done when the provider turns out to have credited what was recorded as failed.

use super::{Store, StoreError, error::is_unique_violation, lane::run_again_after_contention};
use crate::{
    domain::{
        id::{PoolId, RedemptionId},
        money::Money,
    },
    failpoints::Step,
};

/// What became of a late credit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LateCredit {
    /// The redemption is SUCCEEDED now, and its account has the amount.
    Recorded,
    /// The redemption is not FAILED, or not any more.
    NotFailed,
    /// The code was redeemed again since, under another request: a person has to look.
    CodeRedeemedAgain,
}

impl Store {
    /// Records that the provider credited a redemption which was recorded as failed, and adds the
    /// amount to its account. Nothing else of the account changes. May be repeated: the second time it
    /// is not failed any more.
    pub async fn credit_late(
        &self,
        pool_id: &PoolId,
        id: RedemptionId,
        (amount, provider_ref): (Money, Option<&str>),
        attempts: i32,
        actor: &str,
    ) -> Result<LateCredit, StoreError> {
        let currency = amount.currency.to_string();
        let credit = || {
            sqlx::query_file_scalar!(
                "src/store/sql/credit_late.sql",
                pool_id.as_str(),
                id.0,
                amount.amount_minor,
                currency,
                provider_ref,
                attempts,
                actor,
            )
            .fetch_optional(&self.db)
        };
        // A unique violation is an answer here, so it is taken out of the errors.
        let credited = run_again_after_contention(
            Step::Settle,
            || async {
                match credit().await {
                    Err(error) if is_unique_violation(&error) => Ok(None),
                    answered => answered.map(Some),
                }
            },
            |_| false,
        );
        Ok(match credited.await? {
            Some(Some(_)) => LateCredit::Recorded,
            Some(None) => LateCredit::NotFailed,
            None => LateCredit::CodeRedeemedAgain,
        })
    }
}
