//! The audit trail: what people did, and which settings were changed. Most events are written by the statement that
//! makes the change; see `sql/`. Each is a line of the log's target `holdfast::audit`, too.

use serde_json::Value;
use time::OffsetDateTime;

use super::{
    Store, StoreError,
    page::{MAX_BYTES, read_page},
    pg::error::is_foreign_key_violation,
};
use crate::domain::{
    audit::{AuditEvent, AuditFilter},
    id::PoolId,
    page::Page,
    principal::{Authority, Principal},
};

/// By how much the clock of a transaction's begin, which is an event's time, may be before the one that makes its id.
const MAX_TRANSACTION: time::Duration = time::Duration::hours(1);

/// An event to record where no one statement makes the change.
#[derive(Clone, Debug)]
pub struct NewAuditEvent<'a> {
    /// What was done: the RPC's name, or the command's.
    pub action: &'a str,
    /// In which pool; `None`: in none.
    pub pool_id: Option<&'a PoolId>,
    /// Of what.
    pub subject: &'a str,
    /// The values that changed, as they were. Never codes or credentials.
    pub before: Option<Value>,
    /// As they are.
    pub after: Option<Value>,
    /// The reason that was given, if one was.
    pub reason: &'a str,
}

/// An event, as the log tells it.
pub(super) struct Line<'a> {
    pub(super) principal: &'a str,
    pub(super) peer: &'a str,
    pub(super) action: &'a str,
    pub(super) pool_id: &'a str,
    pub(super) subject: &'a str,
    pub(super) before: &'a str,
    pub(super) after: &'a str,
    pub(super) reason: &'a str,
}

/// Says in the log what was recorded.
pub(super) fn log(line: &Line<'_>) {
    let Line { principal, peer, action, pool_id, subject, before, after, reason } = line;
    tracing::info!(
        target: "holdfast::audit",
        principal, peer, action, pool_id, subject, before, after, reason, "audit"
    );
}

/// The columns by which a statement tells what it has recorded.
pub(super) struct Written<'a> {
    pub(super) action: &'a str,
    pub(super) pool_id: &'a str,
    pub(super) subject: &'a str,
    pub(super) before: Option<Value>,
    pub(super) after: Option<Value>,
    pub(super) reason: &'a str,
}

/// Says in the log what a statement has recorded; nothing where nothing changed.
pub(super) fn log_written(by: &Authority, written: &Written<'_>) {
    let text = |value: &Option<Value>| value.as_ref().map(Value::to_string).unwrap_or_default();
    if written.before.is_none() && written.after.is_none() {
        return;
    }
    log(&Line {
        principal: by.principal.name(),
        peer: &by.peer(),
        action: written.action,
        pool_id: written.pool_id,
        subject: written.subject,
        before: &text(&written.before),
        after: &text(&written.after),
        reason: written.reason,
    });
}

/// Whether something was deleted, with what it was before. It was not where it is not there, or something else refers to it.
pub(super) fn deleted(
    by: &Authority,
    action: &'static str,
    [pool_id, subject]: [&str; 2],
    answer: Result<Option<Option<Value>>, sqlx::Error>,
) -> Result<bool, StoreError> {
    match answer {
        Ok(None) => Ok(false),
        Ok(Some(before)) => {
            let written = Written { action, pool_id, subject, before, after: None, reason: "" };
            log_written(by, &written);
            Ok(true)
        }
        Err(error) if is_foreign_key_violation(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

struct EventRow {
    event_id: i64,
    created_at: OffsetDateTime,
    principal: String,
    peer: String,
    action: String,
    pool_id: String,
    subject: String,
    before: String,
    after: String,
    reason: String,
    more: bool,
}

impl EventRow {
    fn read(self) -> AuditEvent {
        AuditEvent {
            event_id: self.event_id,
            created_at: self.created_at,
            principal: Principal::named(&self.principal),
            peer: self.peer,
            action: self.action,
            pool_id: self.pool_id,
            subject: self.subject,
            before: self.before,
            after: self.after,
            reason: self.reason,
        }
    }
}

impl Store {
    /// Records an event by itself. Where one statement makes the change, that statement records it.
    pub async fn record_audit_event(
        &self,
        by: &Authority,
        event: NewAuditEvent<'_>,
    ) -> Result<(), StoreError> {
        let NewAuditEvent { action, pool_id, subject, before, after, reason } = event;
        let pool_id = pool_id.map_or("", PoolId::as_str);
        sqlx::query_file!(
            "src/store/sql/audit/insert_audit_event.sql",
            pool_id,
            by.principal.name(),
            by.peer(),
            action,
            subject,
            before,
            after,
            reason,
        )
        .execute(&self.rest)
        .await?;
        log_written(by, &Written { action, pool_id, subject, before, after, reason });
        Ok(())
    }

    /// Lists the audit trail before the event `before` (exclusive), newest first, at most `limit`.
    pub async fn list_audit_events(
        &self,
        filter: &AuditFilter,
        before: i64,
        limit: i64,
    ) -> Result<Page<AuditEvent>, StoreError> {
        let end = filter.to.map(|to| id_at(to.saturating_add(MAX_TRANSACTION)));
        let first = filter.from.map_or(i64::MIN, id_at);
        let pools = filter.pools.as_ref();
        let rows = sqlx::query_file_as!(
            EventRow,
            "src/store/sql/audit/list_audit_events.sql",
            end.map_or(before, |end| end.min(before)),
            limit,
            MAX_BYTES,
            filter.pool_id.as_ref().map(PoolId::as_str),
            filter.principal.as_deref(),
            filter.subject.as_deref(),
            filter.from,
            filter.to,
            first,
            pools.map(|pools| pools.starts.as_slice()),
            pools.map(|pools| pools.ids.as_slice()),
            filter.action.as_deref(),
        );
        let found = rows.fetch_all(&self.rest).await?;
        read_page(found, limit, |row| row.more, |row| Ok(row.read()))
    }
}

/// The first id that an event of this time can have: the table's default counts so.
fn id_at(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos() / 1000 * 256).unwrap_or(i64::MAX)
}
