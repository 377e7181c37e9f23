//! The audit trail's events.

use serde_json::Value;

use super::{text, time};
use crate::rpc::pb;

/// The columns of an event of the audit trail.
pub(crate) const AUDIT_EVENT: &[&str] = &[
    "event_id",
    "create_time",
    "principal",
    "peer",
    "action",
    "pool_id",
    "subject",
    "before",
    "after",
    "reason",
];

/// Those that fit on a terminal.
pub(crate) const AUDIT_EVENT_AT_A_GLANCE: &[&str] =
    &["create_time", "principal", "action", "pool_id", "subject", "before", "after", "reason"];

/// The row of an event of the audit trail.
pub(crate) fn audit_event(event: &pb::AuditEvent) -> Vec<Value> {
    vec![
        event.event_id.into(),
        time(event.create_time.as_ref()),
        text(&event.principal),
        text(&event.peer),
        text(&event.action),
        text(&event.pool_id),
        text(&event.subject),
        text(&event.before),
        text(&event.after),
        text(&event.reason),
    ]
}
