//! Who changed what: `holdfast audit-log`.

use std::num::NonZeroUsize;

use clap::Args;
use time::OffsetDateTime;

use super::shared::{
    client::{PAGE_SIZE, RpcError, ServerArgs, unary},
    output::{Format, FormatArgs, Rows, Sink, while_read},
    parse, view,
};
use crate::{domain::id::PoolId, rpc::pb};

/// Which events to show.
#[derive(Args, Debug)]
pub(super) struct AuditLogArgs {
    /// Only what was done in this pool.
    #[arg(long, value_parser = parse::pool)]
    pool: Option<PoolId>,
    /// Only what this principal did.
    #[arg(long)]
    principal: Option<String>,
    /// Only what was done to this account, plan, redemption, provider or token.
    #[arg(long)]
    subject: Option<String>,
    /// Only from this time on, such as 2026-11-30T12:00:00Z.
    #[arg(long, value_parser = parse::time)]
    since: Option<OffsetDateTime>,
    /// Only before this time.
    #[arg(long, value_parser = parse::time)]
    until: Option<OffsetDateTime>,
    /// At most so many events, the newest.
    #[arg(long, default_value = "1000")]
    limit: NonZeroUsize,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    server: ServerArgs,
}

/// Shows the audit trail, the newest event first.
pub(super) async fn run(args: AuditLogArgs) -> anyhow::Result<()> {
    while_read(show(args)).await
}

async fn show(args: AuditLogArgs) -> anyhow::Result<()> {
    let mut access = args.server.connect().await?.access();
    let time = |at: OffsetDateTime| prost_types::Timestamp {
        seconds: at.unix_timestamp(),
        nanos: i32::try_from(at.nanosecond()).unwrap_or_default(),
    };
    let mut request = pb::ListAuditEventsRequest {
        pool_id: args.pool.map(|pool| pool.to_string()).unwrap_or_default(),
        principal: args.principal.unwrap_or_default(),
        subject: args.subject.unwrap_or_default(),
        from_time: args.since.map(time),
        to_time: args.until.map(time),
        page_size: PAGE_SIZE,
        page_token: String::new(),
    };
    let format = args.format.for_stdout();
    let columns = match format {
        // All of them fit on no terminal.
        Format::Table => view::AUDIT_EVENT_AT_A_GLANCE,
        Format::Csv | Format::Json => view::AUDIT_EVENT,
    };
    let mut rows = Rows::new(format, columns, Sink::stdout());
    let mut left = args.limit.get();
    while left > 0 {
        let reply = access.list_audit_events(unary(request.clone())).await.map_err(RpcError)?;
        let page = reply.into_inner();
        for event in page.events.iter().take(left) {
            let row = view::audit_event(event);
            rows.push(&view::choose(columns, view::AUDIT_EVENT, &row))?;
        }
        left = left.saturating_sub(page.events.len());
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    rows.finish()?;
    Ok(())
}
