//! `ListAuditEvents`: the audit trail over gRPC.

use tonic::{Request, Response, Status};

use super::{
    convert::{Fields, timestamp},
    page::page,
    pb,
    status::status,
};
use crate::{
    domain::{
        access::PoolFilter,
        audit::{AuditEvent, AuditFilter},
        id::PoolId,
    },
    service::{Error, admin::audit_events::AuditTrail},
};

/// The longest principal or subject of a filter: more than any that is kept.
const MAX_TEXT: usize = 512;

pub(super) async fn list(
    trail: &AuditTrail,
    request: Request<pb::ListAuditEventsRequest>,
) -> Result<Response<pb::ListAuditEventsResponse>, Status> {
    let pools = request.extensions().get::<PoolFilter>().cloned();
    let (filter, before, limit) = read(request.into_inner(), pools).map_err(|e| status(&e))?;
    let before = before.unwrap_or(i64::MAX);
    let found = trail.list(&filter, before, limit).await.map_err(|e| status(&e))?;
    let (events, next_page_token) = page(&found, |event| event.event_id.to_string(), event_message);
    Ok(Response::new(pb::ListAuditEventsResponse { events, next_page_token }))
}

/// Which events, before which of them, and how many.
pub(super) fn read(
    request: pb::ListAuditEventsRequest,
    pools: Option<PoolFilter>,
) -> Result<(AuditFilter, Option<i64>, i64), Error> {
    let mut fields = Fields::default();
    let limit = fields.page_size(request.page_size);
    let before = fields.page_token(&request.page_token, |key| key.parse::<i64>().ok());
    let filter = AuditFilter {
        pool_id: fields.optional_id("pool_id", &request.pool_id, PoolId::parse),
        pools,
        principal: fields.optional_text("principal", &request.principal, MAX_TEXT),
        subject: fields.optional_text("subject", &request.subject, MAX_TEXT),
        action: fields.optional_text("action", &request.action, MAX_TEXT),
        from: fields.time("from_time", request.from_time),
        to: fields.time("to_time", request.to_time),
    };
    if let (Some(from), Some(to)) = (filter.from, filter.to)
        && from >= to
    {
        fields.refuse("to_time", "must be after from_time");
    }
    fields.finish(Some((filter, before, limit)))
}

fn event_message(event: &AuditEvent) -> pb::AuditEvent {
    pb::AuditEvent {
        event_id: event.event_id,
        create_time: Some(timestamp(event.created_at)),
        principal: event.principal.to_string(),
        peer: event.peer.clone(),
        action: event.action.clone(),
        pool_id: event.pool_id.clone(),
        subject: event.subject.clone(),
        before: event.before.clone(),
        after: event.after.clone(),
        reason: event.reason.clone(),
    }
}
