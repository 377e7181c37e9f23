//! Redemptions as messages.

use crate::{
    domain::{
        money::Currency,
        redemption::{
            Redemption, RedemptionState, Resolution, Reversal, ReversalState, SupersededResolution,
        },
    },
    rpc::{
        convert::{self, timestamp},
        pb,
    },
};

pub(super) fn read_state(state: pb::RedemptionState) -> Option<RedemptionState> {
    match state {
        pb::RedemptionState::Unspecified => None,
        pb::RedemptionState::Submitted => Some(RedemptionState::Submitted),
        pb::RedemptionState::InDoubt => Some(RedemptionState::InDoubt),
        pb::RedemptionState::NeedsReview => Some(RedemptionState::NeedsReview),
        pb::RedemptionState::Succeeded => Some(RedemptionState::Succeeded),
        pb::RedemptionState::Failed => Some(RedemptionState::Failed),
    }
}

pub(in crate::rpc) fn state_message(state: RedemptionState) -> i32 {
    match state {
        RedemptionState::Submitted => pb::RedemptionState::Submitted,
        RedemptionState::InDoubt => pb::RedemptionState::InDoubt,
        RedemptionState::NeedsReview => pb::RedemptionState::NeedsReview,
        RedemptionState::Succeeded => pb::RedemptionState::Succeeded,
        RedemptionState::Failed => pb::RedemptionState::Failed,
    }
    .into()
}

pub(super) fn redemption_message(redemption: &Redemption, currency: Currency) -> pb::Redemption {
    let open = redemption.state.is_open();
    let failed = matches!(redemption.state, RedemptionState::Failed | RedemptionState::NeedsReview);
    pb::Redemption {
        redemption_id: redemption.redemption_id.to_string(),
        request_id: redemption.request_id.to_string(),
        attempt: redemption.attempt,
        principal: redemption.principal.to_string(),
        pool_id: redemption.pool_id.to_string(),
        account_id: redemption.account_id.to_string(),
        fencing_token: redemption.token.0,
        state: state_message(redemption.state),
        expected: redemption.expected_minor.map(|minor| convert::money(minor, currency)),
        expected_learned: redemption.expected_learned,
        provider_id: redemption.profile.provider_id.to_string(),
        provider_version: redemption.profile.version,
        provider_task: redemption.provider_task.clone().unwrap_or_default(),
        amount: redemption.amount.map(|m| convert::money(m.amount_minor, m.currency)),
        provider_ref: redemption.provider_ref.clone().unwrap_or_default(),
        code_last4: redemption.code_last4.clone(),
        failure: redemption.failure.as_ref().filter(|_| failed).map(|failure| pb::Failure {
            reason: failure.reason.clone(),
            message: failure.message.clone(),
            code_spent: failure.code_spent,
            retryable: redemption.is_retryable(),
        }),
        attempts: redemption.attempts,
        create_time: Some(timestamp(redemption.created_at)),
        finish_time: redemption.finished_at.map(timestamp),
        next_check_time: redemption.next_check_at.map(timestamp),
        amount_mismatch: redemption.has_amount_mismatch(),
        last_answer: redemption.last_answer.clone().filter(|_| open).unwrap_or_default(),
        resolution: redemption.resolution.as_ref().map(|resolution| pb::Resolution {
            number: redemption.resolution_number(),
            ..resolution_message(resolution)
        }),
        reverse_time: redemption.reversed_at.map(timestamp),
        reversal: None,
        superseded_resolutions: Vec::new(),
    }
}

/// The same with the words that others took the place of.
pub(super) fn with_words(
    mut redemption: pb::Redemption,
    superseded: &[SupersededResolution],
) -> pb::Redemption {
    redemption.superseded_resolutions = superseded.iter().map(superseded_message).collect();
    redemption
}

fn superseded_message(superseded: &SupersededResolution) -> pb::SupersededResolution {
    let resolution = resolution_message(&superseded.resolution);
    pb::SupersededResolution {
        resolution: Some(pb::Resolution { number: superseded.number, ..resolution }),
        state: state_message(superseded.state),
        amount: superseded.amount.map(|m| convert::money(m.amount_minor, m.currency)),
        code_spent: superseded.code_spent,
        finish_time: Some(timestamp(superseded.finished_at)),
        supersede_time: Some(timestamp(superseded.superseded_at)),
    }
}

/// The same with its newest reversal.
pub(super) fn reversed_message(
    (redemption, reversal): &(Redemption, Option<Reversal>),
    currency: Currency,
) -> pb::Redemption {
    let reversal = reversal.as_ref().map(reversal_message);
    pb::Redemption { reversal, ..redemption_message(redemption, currency) }
}

fn reversal_message(reversal: &Reversal) -> pb::Reversal {
    let Resolution { resolved_by, principal, reason, evidence } = reversal.request.clone();
    pb::Reversal {
        state: reversal_state_message(reversal.state),
        number: reversal.number,
        reversed_by: resolved_by,
        principal: principal.to_string(),
        reason,
        evidence: evidence.unwrap_or_default(),
        resolution: reversal.resolution.as_ref().map(resolution_message),
        attempts: reversal.attempts,
        last_answer: reversal.last_answer.clone().unwrap_or_default(),
        next_check_time: reversal.next_check_at.map(timestamp),
        create_time: Some(timestamp(reversal.created_at)),
        finish_time: reversal.finished_at.map(timestamp),
    }
}

pub(super) fn read_reversal_state(state: pb::ReversalState) -> Option<ReversalState> {
    match state {
        pb::ReversalState::Unspecified => None,
        pb::ReversalState::Requested => Some(ReversalState::Requested),
        pb::ReversalState::InDoubt => Some(ReversalState::InDoubt),
        pb::ReversalState::NeedsReview => Some(ReversalState::NeedsReview),
        pb::ReversalState::Succeeded => Some(ReversalState::Succeeded),
        pb::ReversalState::Failed => Some(ReversalState::Failed),
    }
}

fn reversal_state_message(state: ReversalState) -> i32 {
    match state {
        ReversalState::Requested => pb::ReversalState::Requested,
        ReversalState::InDoubt => pb::ReversalState::InDoubt,
        ReversalState::NeedsReview => pb::ReversalState::NeedsReview,
        ReversalState::Succeeded => pb::ReversalState::Succeeded,
        ReversalState::Failed => pb::ReversalState::Failed,
    }
    .into()
}

fn resolution_message(resolution: &Resolution) -> pb::Resolution {
    pb::Resolution {
        resolved_by: resolution.resolved_by.clone(),
        principal: resolution.principal.to_string(),
        reason: resolution.reason.clone(),
        evidence: resolution.evidence.clone().unwrap_or_default(),
        number: 0, // Of a redemption: see its message.
    }
}
