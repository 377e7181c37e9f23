//! Which redemptions are wanted.

use time::OffsetDateTime;

use super::{RedemptionState, ReversalState};
use crate::domain::{
    id::{AccountId, BatchId, Holder, RequestId},
    principal::Principal,
};

/// Which redemptions a list is of.
#[derive(Clone, Debug, Default)]
pub struct RedemptionFilter {
    /// Only of these states; of any when empty.
    pub states: Vec<RedemptionState>,
    /// Only into this account.
    pub account_id: Option<AccountId>,
    /// Only of this batch.
    pub batch_id: Option<BatchId>,
    /// Only of this request; not with a batch.
    pub request_id: Option<RequestId>,
    /// Only those that failed, or need review, for this reason.
    pub failure_reason: Option<String>,
    /// Only those that were begun under a lease of this holder.
    pub holder: Option<Holder>,
    /// Only those whose code ends so.
    pub code_last4: Option<String>,
    /// Only of this principal, or of nobody in particular: who asks may not read those of others.
    pub readable_by: Option<Principal>,
    /// Only with a reversal in one of these states; with or without any when empty.
    pub reversal_states: Vec<ReversalState>,
    /// Only recorded at this time or later, by the database's clock.
    pub created_from: Option<OffsetDateTime>,
    /// Only recorded before this time.
    pub created_to: Option<OffsetDateTime>,
}
