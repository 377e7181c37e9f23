//! What the audit trail gets of changes of accounts: those that a person makes. It is written with the change.

use serde_json::{Map, Value, json};
use sqlx::types::Uuid;

use super::{Asked, RecordedOutcome};
use crate::{
    domain::{
        account::{Account, AccountEvent, Change, Correction, LeaseEnd, Next},
        principal::Authority,
    },
    store::{account::labels_json, audit},
};

/// An event of the audit trail, by the change that it tells of: the type `audit_note` of the schema.
#[derive(Debug, sqlx::Type)]
#[sqlx(type_name = "audit_note")]
pub(super) struct AuditNote {
    change_id: Uuid,
    principal: String,
    peer: String,
    action: String,
    subject: String,
    before: Option<Value>,
    after: Option<Value>,
    reason: String,
}

impl AuditNote {
    /// What is recorded of a change; nothing of those that holders and servers make.
    pub(super) fn of(asked: &Asked, account: &Account, change: &Change) -> Option<Self> {
        let note = |by: &Authority, action: &str, subject: String, values: (Value, Value)| Self {
            change_id: asked.change_id,
            principal: by.principal.name().to_owned(),
            peer: by.peer(),
            action: action.to_owned(),
            subject,
            before: Some(values.0),
            after: Some(values.1),
            reason: reason(asked).to_owned(),
        };
        match &asked.event {
            AccountEvent::Update(_, by) => {
                let values = updated(account, &change.next)?;
                Some(note(by, "UpdateAccount", account.account_id.to_string(), values))
            }
            AccountEvent::Release { by, .. } => {
                let lease = account.lease.as_ref()?;
                if by.principal.may_use(&lease.request.principal) {
                    return None;
                }
                let before = json!({
                    "fencing_token": account.token.0,
                    "holder": lease.holder.as_str(),
                    "principal": lease.request.principal.name(),
                    "status": account.status.as_str(),
                });
                let is_over = change.next.lease_end == Some(LeaseEnd::Released);
                let after = json!({
                    "status": change.next.status.as_str(),
                    "release_requested": !is_over,
                });
                Some(note(by, "ReleaseAccount", account.account_id.to_string(), (before, after)))
            }
            AccountEvent::Correct(correction, by) => {
                let values = corrected(account, &change.next, correction);
                Some(note(by, "CorrectBalance", account.account_id.to_string(), values))
            }
            AccountEvent::Settle(settle) => {
                let (by, outcome) = (settle.by.as_ref()?, by_word(asked)?);
                let values = settled(outcome);
                Some(note(by, "ResolveRedemption", outcome.redemption_id.to_string(), values))
            }
            AccountEvent::Restate(restatement, by) => {
                let outcome = by_word(asked)?;
                let (mut before, mut after) = settled(outcome);
                let balance = account.balance_minor;
                before["balance_minor"] = balance.into();
                after["balance_minor"] = (balance + restatement.difference_minor).into();
                let subject = outcome.redemption_id.to_string();
                Some(note(by, "ResolveRedemption", subject, (before, after)))
            }
            AccountEvent::Reverse { by, amount_minor, .. } => {
                let (by, outcome) = (by.as_ref()?, by_word(asked)?);
                let balance = account.balance_minor;
                let before = json!({ "balance_minor": balance, "reversed": false });
                let after = json!({ "balance_minor": balance - amount_minor, "reversed": true });
                let subject = outcome.redemption_id.to_string();
                Some(note(by, "ReverseRedemption", subject, (before, after)))
            }
            _ => None,
        }
    }

    /// Says in the log what was recorded.
    pub(super) fn log(&self, pool_id: &str) {
        let text = |value: &Option<Value>| value.as_ref().map(Value::to_string).unwrap_or_default();
        audit::log(&audit::Line {
            principal: &self.principal,
            peer: &self.peer,
            action: &self.action,
            pool_id,
            subject: &self.subject,
            before: &text(&self.before),
            after: &text(&self.after),
            reason: &self.reason,
        });
    }
}

/// The outcome that is recorded by a person's word.
fn by_word(asked: &Asked) -> Option<&RecordedOutcome> {
    asked.outcome.as_ref().filter(|outcome| outcome.resolution.is_some())
}

fn reason(asked: &Asked) -> &str {
    if let AccountEvent::Correct(correction, _) = &asked.event {
        return &correction.reason;
    }
    let resolution = by_word(asked).and_then(|outcome| outcome.resolution.as_ref());
    resolution.map_or("", |resolution| &resolution.reason)
}

fn settled(outcome: &RecordedOutcome) -> (Value, Value) {
    let before = json!({ "state": outcome.known_state.map(|state| state.as_str()) });
    let mut after = Map::new();
    after.insert("state".into(), outcome.state.as_str().into());
    if let Some(amount) = outcome.amount {
        after.insert("amount_minor".into(), amount.amount_minor.into());
        after.insert("currency_code".into(), amount.currency.as_str().into());
    }
    if let Some(failure) = &outcome.failure {
        after.insert("code_spent".into(), failure.code_spent.into());
    }
    (before, after.into())
}

/// What a person's correction makes of a balance, and of the status. The words that were given with it are kept here
/// alone.
fn corrected(account: &Account, next: &Next, correction: &Correction) -> (Value, Value) {
    let before = json!({
        "balance_minor": account.balance_minor,
        "status": account.status.as_str(),
    });
    let mut after = Map::new();
    after.insert("balance_minor".into(), correction.balance_minor.into());
    after.insert("status".into(), next.status.as_str().into());
    after.insert("corrected_by".into(), correction.corrected_by.as_str().into());
    if let Some(evidence) = &correction.evidence {
        after.insert("evidence".into(), evidence.as_str().into());
    }
    (before, after.into())
}

/// The values that a person's change of an account changes, as they were and as they are; nothing where it changes none.
fn updated(account: &Account, next: &Next) -> Option<(Value, Value)> {
    let (mut before, mut after) = (Map::new(), Map::new());
    let mut compare = |key: &str, was: Value, is: Value| {
        if was != is {
            before.insert(key.into(), was);
            after.insert(key.into(), is);
        }
    };
    compare("status", account.status.as_str().into(), next.status.as_str().into());
    compare(
        "login_status",
        account.login_status.as_str().into(),
        next.login_status.as_str().into(),
    );
    let plan = |id: Option<&_>| id.map(ToString::to_string).into();
    compare("plan_id", plan(account.plan_id.as_ref()), plan(next.plan_id.as_ref()));
    compare("country_code", account.country_code.clone().into(), next.country_code.clone().into());
    let labels = next.labels.as_ref().unwrap_or(&account.labels);
    compare("labels", labels_json(&account.labels), labels_json(labels));
    compare("paused", account.paused.into(), next.paused.into());
    compare("draining", account.draining.into(), next.draining.into());
    let was = account.hold.map(|hold| hold.cause.as_str());
    compare("hold", was.into(), next.hold_cause.map(|cause| cause.as_str()).into());
    (!after.is_empty()).then(|| (before.into(), after.into()))
}
