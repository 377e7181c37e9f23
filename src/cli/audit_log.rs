//! Who changed what: `holdfast audit-log`.

mod follow;

use std::num::NonZeroUsize;

use clap::Args;
use time::OffsetDateTime;

use super::shared::{
    client::{PAGE_SIZE, RpcError, ServerArgs, unary},
    list::ListOptions,
    output::{Sink, while_read},
    parse,
    stop::Stop,
    view,
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
    /// Only what was done by this RPC, such as UpdateAccount.
    #[arg(long)]
    action: Option<String>,
    /// Only from this time on, such as 2026-11-30T12:00:00Z.
    #[arg(long, value_parser = parse::time)]
    since: Option<OffsetDateTime>,
    /// Only before this time.
    #[arg(long, value_parser = parse::time)]
    until: Option<OffsetDateTime>,
    /// At most so many events, the newest.
    #[arg(long, default_value = "1000")]
    limit: NonZeroUsize,
    /// Go on with new events as they come, until Ctrl-C. The oldest is first then.
    #[arg(long, conflicts_with = "until")]
    follow: bool,
    #[command(flatten)]
    list: ListOptions,
    #[command(flatten)]
    server: ServerArgs,
}

impl AuditLogArgs {
    /// The events that are asked for; the first page.
    fn request(&self) -> pb::ListAuditEventsRequest {
        pb::ListAuditEventsRequest {
            pool_id: self.pool.as_ref().map(ToString::to_string).unwrap_or_default(),
            principal: self.principal.clone().unwrap_or_default(),
            subject: self.subject.clone().unwrap_or_default(),
            action: self.action.clone().unwrap_or_default(),
            from_time: self.since.map(parse::timestamp),
            to_time: self.until.map(parse::timestamp),
            page_size: PAGE_SIZE,
            page_token: String::new(),
        }
    }
}

/// Shows the audit trail: the newest event first, or, where it is followed, the oldest.
pub(super) async fn run(args: AuditLogArgs) -> anyhow::Result<()> {
    if args.follow {
        let mut stop = Stop::listen(false)?;
        return while_read(follow::show(args, stop.asked())).await;
    }
    while_read(show(args)).await
}

async fn show(args: AuditLogArgs) -> anyhow::Result<()> {
    // All of them fit on no terminal.
    let mut rows =
        args.list.rows(view::AUDIT_EVENT, view::AUDIT_EVENT_AT_A_GLANCE, Sink::stdout())?;
    let mut access = args.server.connect().await?.access();
    let mut request = args.request();
    let mut left = args.limit.get();
    while left > 0 {
        let reply = access.list_audit_events(unary(request.clone())).await.map_err(RpcError)?;
        let page = reply.into_inner();
        for event in page.events.iter().take(left) {
            rows.push(&view::audit_event(event))?;
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
