//! A change as the statement takes it: the type `account_change` of the schema.

use sqlx::{postgres::types::PgInterval, types::time::OffsetDateTime};
use uuid::Uuid;

use super::{
    super::{account::labels_json, interval},
    Asked,
};
use crate::domain::account::{Account, Change, HoldCause, Resume};

/// See [the module](self). The fields are in the order of the type.
#[derive(Debug, sqlx::Type)]
#[sqlx(type_name = "account_change")]
pub(in crate::store) struct ChangeRow {
    account_id: String,
    version: i64,
    seen: Uuid,
    seen_token: i64,
    change_id: Uuid,
    guard: String,
    actor: String,
    reason: String,
    status: String,
    resume_status: Option<String>,
    fencing_token: i64,
    holder: Option<String>,
    lease_request_id: Option<String>,
    lease_for: Option<PgInterval>,
    bound_by_lease: bool,
    release_requested: bool,
    lease_end: Option<String>,
    login_status: String,
    plan_id: Option<String>,
    country_code: Option<String>,
    labels: Option<serde_json::Value>,
    paused: bool,
    draining: bool,
    credit_minor: i64,
    plan_day: i32,
    day_credited_minor: i64,
    reserved_minor: Option<i64>,
    day_due_at: Option<OffsetDateTime>,
    day_due_in: Option<PgInterval>,
    cooldown_until: Option<OffsetDateTime>,
    cooldown_for: Option<PgInterval>,
    hold_until: Option<OffsetDateTime>,
    hold_for: Option<PgInterval>,
    hold_cause: Option<String>,
    hold_count: i32,
    goes_idle: bool,
    open_redemption_id: Option<Uuid>,
    redemption_id: Option<Uuid>,
    known_state: Option<String>,
    state: Option<String>,
    amount_minor: Option<i64>,
    amount_currency: Option<String>,
    provider_ref: Option<String>,
    failure_reason: Option<String>,
    failure_message: Option<String>,
    code_spent: Option<bool>,
    attempts: Option<i32>,
    last_answer: Option<String>,
    resolved_by: Option<String>,
    resolution_reason: Option<String>,
    resolution_evidence: Option<String>,
    principal: String,
    lease_principal: Option<String>,
    resolved_principal: Option<String>,
}

impl ChangeRow {
    pub(in crate::store) fn new(account: &Account, change: &Change, asked: &Asked) -> Self {
        let Change { from, guard, actor, principal, reason, next } = change;
        let outcome = asked.outcome.as_ref();
        let failure = outcome.and_then(|outcome| outcome.failure.as_ref());
        let resolution = outcome.and_then(|outcome| outcome.resolution.as_ref());
        let amount = outcome.and_then(|outcome| outcome.amount);
        Self {
            account_id: account.account_id.to_string(),
            version: from.number,
            seen: from.change_id,
            seen_token: account.token.0,
            change_id: asked.change_id,
            guard: guard.as_str().to_owned(),
            actor: actor.clone(),
            reason: (*reason).to_owned(),
            status: next.status.as_str().to_owned(),
            resume_status: next.resume.map(Resume::status).map(|status| status.as_str().to_owned()),
            fencing_token: next.token.0,
            holder: next.lease.as_ref().map(|lease| lease.holder.to_string()),
            lease_request_id: next.lease.as_ref().map(|lease| lease.request.request_id.to_string()),
            lease_for: next.lease_for.map(interval),
            bound_by_lease: next.bound_by_lease,
            release_requested: next.release_requested,
            lease_end: next.lease_end.map(|end| end.as_str().to_owned()),
            login_status: next.login_status.as_str().to_owned(),
            plan_id: next.plan_id.as_ref().map(ToString::to_string),
            country_code: next.country_code.clone(),
            labels: next.labels.as_ref().map(labels_json),
            paused: next.paused,
            draining: next.draining,
            credit_minor: next.credit_minor,
            plan_day: next.plan_day,
            day_credited_minor: next.day_credited_minor,
            reserved_minor: next.reserved_minor,
            day_due_at: next.day_due.at(),
            day_due_in: next.day_due.duration().map(interval),
            cooldown_until: next.cooldown.at(),
            cooldown_for: next.cooldown.duration().map(interval),
            hold_until: next.hold.at(),
            hold_for: next.hold.duration().map(interval),
            hold_cause: next.hold_cause.map(HoldCause::as_str).map(str::to_owned),
            hold_count: next.hold_count,
            goes_idle: next.goes_idle,
            open_redemption_id: next.open_redemption_id.map(|id| id.0),
            redemption_id: outcome.map(|outcome| outcome.redemption_id.0),
            known_state: outcome
                .and_then(|outcome| outcome.known_state)
                .map(|state| state.as_str().to_owned()),
            state: outcome.map(|outcome| outcome.state.as_str().to_owned()),
            amount_minor: amount.map(|amount| amount.amount_minor),
            amount_currency: amount.map(|amount| amount.currency.to_string()),
            provider_ref: outcome.and_then(|outcome| outcome.provider_ref.clone()),
            failure_reason: failure.map(|failure| failure.reason.clone()),
            failure_message: failure.map(|failure| failure.message.clone()),
            code_spent: failure.map(|failure| failure.code_spent),
            attempts: outcome.map(|outcome| outcome.attempts),
            last_answer: outcome.and_then(|outcome| outcome.last_answer.clone()),
            resolved_by: resolution.map(|resolution| resolution.resolved_by.clone()),
            resolution_reason: resolution.map(|resolution| resolution.reason.clone()),
            resolution_evidence: resolution.and_then(|resolution| resolution.evidence.clone()),
            principal: principal.name().to_owned(),
            lease_principal: next
                .lease
                .as_ref()
                .map(|lease| lease.request.principal.name().to_owned()),
            resolved_principal: resolution.map(|resolution| resolution.principal.name().to_owned()),
        }
    }
}
