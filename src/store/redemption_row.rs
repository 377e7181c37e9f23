//! The columns of redemptions, and how they are read.

use super::{StoreError, account::read_plan_id};
use crate::domain::{
    id::{Holder, PlanId, ProviderId, RequestId},
    money::{Currency, Money},
    principal::Principal,
    provider::ProfileVersion,
    redemption::{Failure, RedemptionState, Resolution},
};

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
            pub(super) attempt: i32,
            pub(super) principal: String,
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
            pub(super) provider_id: String,
            pub(super) provider_version: i32,
            pub(super) provider_task: Option<String>,
            pub(super) failure_reason: Option<String>,
            pub(super) failure_message: Option<String>,
            pub(super) code_spent: Option<bool>,
            pub(super) resolved_by: Option<String>,
            pub(super) resolved_principal: Option<String>,
            pub(super) resolution_reason: Option<String>,
            pub(super) resolution_evidence: Option<String>,
            pub(super) superseded: i32,
            pub(super) attempts: i32,
            pub(super) last_answer: Option<String>,
            pub(super) next_check_at: Option<time::OffsetDateTime>,
            pub(super) created_at: time::OffsetDateTime,
            pub(super) finished_at: Option<time::OffsetDateTime>,
            pub(super) reversed_at: Option<time::OffsetDateTime>,
        }

        impl $name {
            pub(super) fn redemption(
                self,
                pool_id: &$crate::domain::id::PoolId,
            ) -> Result<$crate::domain::redemption::Redemption, $crate::store::StoreError> {
                use $crate::store::redemption_row as stored;
                Ok($crate::domain::redemption::Redemption {
                    redemption_id: $crate::domain::id::RedemptionId(self.redemption_id),
                    request_id: stored::read_request_id(&self.request_id)?,
                    attempt: self.attempt,
                    principal: $crate::domain::principal::Principal::named(&self.principal),
                    pool_id: pool_id.clone(),
                    account_id: $crate::store::account::read_account_id(&self.account_id)?,
                    token: $crate::domain::id::FencingToken(self.fencing_token),
                    holder: stored::read_holder(&self.holder)?,
                    state: stored::read_state(&self.state)?,
                    code_last4: self.code_last4,
                    expected_minor: self.expected_minor,
                    expected_learned: self.expected_learned,
                    release_on_completion: self.release_on_completion,
                    begun_on: stored::read_begun_on(
                        self.plan_id.as_deref(),
                        self.plan_day,
                    )?,
                    amount: stored::read_amount(self.amount_minor, self.amount_currency.as_deref())?,
                    provider_ref: self.provider_ref,
                    profile: stored::read_profile(&self.provider_id, self.provider_version)?,
                    provider_task: self.provider_task,
                    failure: stored::read_failure(
                        self.failure_reason,
                        self.failure_message,
                        self.code_spent,
                    ),
                    resolution: stored::read_resolution(
                        self.resolved_by,
                        self.resolved_principal,
                        self.resolution_reason,
                        self.resolution_evidence,
                    ),
                    superseded: self.superseded,
                    attempts: self.attempts,
                    last_answer: self.last_answer,
                    next_check_at: self.next_check_at,
                    created_at: self.created_at,
                    finished_at: self.finished_at,
                    reversed_at: self.reversed_at,
                })
            }
        }
    };
}
pub(super) use redemption_row;

pub(super) fn read_request_id(text: &str) -> Result<RequestId, StoreError> {
    RequestId::parse_any(text).map_err(|_| StoreError::Unreadable("redemptions.request_id"))
}

pub(super) fn read_profile(provider_id: &str, version: i32) -> Result<ProfileVersion, StoreError> {
    let provider_id = ProviderId::parse(provider_id)
        .map_err(|_| StoreError::Unreadable("redemptions.provider_id"))?;
    Ok(ProfileVersion { provider_id, version })
}

pub(super) fn read_holder(text: &str) -> Result<Holder, StoreError> {
    Holder::stored(text).map_err(|_| StoreError::Unreadable("redemptions.holder"))
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
    principal: Option<String>,
    reason: Option<String>,
    evidence: Option<String>,
) -> Option<Resolution> {
    let (resolved_by, reason) = resolved_by.zip(reason)?;
    let principal = Principal::named(principal.as_deref().unwrap_or_default());
    Some(Resolution { resolved_by, principal, reason, evidence })
}
