//! The audit trail, followed: new events as they come.
//!
//! An event's id is made before its transaction ends. So one may appear after another that has a higher id. Each round
//! reads what was recorded in the last [`OVERLAP`] again, and prints what it has not seen there.

use std::{collections::BTreeMap, pin::pin, time::Duration};

use prost_types::Timestamp;
use time::OffsetDateTime;
use tonic::Status;

use super::AuditLogArgs;
use crate::{
    cli::shared::{
        client::{Connection, RpcError, server_time, unary},
        lost::{is_lost, wait},
        output::note,
        parse, view,
    },
    rpc::pb,
};

/// How long before the newest event a round begins to read. A statement, by which an event appears, ends within 20
/// seconds.
const OVERLAP: Duration = Duration::from_secs(600);
/// By how much the clocks of the server and of the database may differ.
const MAX_SKEW: Duration = Duration::from_secs(3600);
/// The pause between two rounds.
const PAUSE: Duration = Duration::from_secs(1);

type Client = pb::access_service_client::AccessServiceClient<Connection>;

/// How far the trail was read.
struct Follow {
    request: pb::ListAuditEventsRequest,
    /// How many events the first round prints, the newest.
    limit: usize,
    /// The time of the newest event; at first one that is before all that are to come. `None` before the first round.
    newest: Option<OffsetDateTime>,
    /// The events that another round may read again, by their ids, with their times.
    seen: BTreeMap<i64, OffsetDateTime>,
}

/// Prints events until it is stopped.
pub(super) async fn show(
    args: AuditLogArgs,
    stopped: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let mut rows = args.list.endless_rows(view::AUDIT_EVENT)?;
    let request = args.request();
    let limit = args.limit.get();
    let mut client = args.server.connect().await?.access();
    let mut follow = Follow { request, limit, newest: None, seen: BTreeMap::new() };
    let mut stopped = pin!(stopped);
    let mut lost = 0;
    loop {
        let round = tokio::select! {
            biased;
            () = &mut stopped => break,
            round = follow.round(&mut client) => round,
        };
        let pause = match round {
            Ok(events) => {
                lost = 0;
                events.iter().try_for_each(|event| rows.push(&view::audit_event(event)))?;
                PAUSE
            }
            Err(status) if is_lost(&status) => {
                lost += 1;
                if lost == 1 {
                    note(format_args!(
                        "the server does not answer ({}): trying again",
                        status.message()
                    ));
                }
                wait(lost, &status)
            }
            Err(status) => return Err(RpcError(status).into()),
        };
        tokio::select! {
            biased;
            () = &mut stopped => break,
            () = tokio::time::sleep(pause) => {}
        }
    }
    rows.finish()?;
    Ok(())
}

impl Follow {
    /// Reads what is new, the oldest first. A round that fails leaves everything as it was.
    async fn round(&mut self, client: &mut Client) -> Result<Vec<pb::AuditEvent>, Status> {
        let is_first = self.newest.is_none();
        let mut request = self.request.clone();
        if let Some(newest) = self.newest {
            // The window of what was asked for begins later, perhaps.
            let from = [request.from_time.as_ref().map(time), Some(newest - OVERLAP)];
            request.from_time = from.into_iter().max().flatten().map(parse::timestamp);
        }
        let (mut found, mut newest) = (Vec::new(), self.newest);
        loop {
            let reply = client.list_audit_events(unary(request.clone())).await?;
            let begun = server_time(reply.metadata()) - MAX_SKEW;
            let page = reply.into_inner();
            let times = page.events.iter().map(time_of);
            newest = newest.or(Some(begun)).into_iter().chain(times).max();
            found.extend(page.events);
            // What the next round reads again has to be seen, whether or not it is printed.
            let is_old = |event: &pb::AuditEvent| Some(time_of(event) + OVERLAP) < newest;
            let is_enough =
                is_first && found.len() >= self.limit && found.last().is_some_and(is_old);
            if page.next_page_token.is_empty() || is_enough {
                break;
            }
            request.page_token = page.next_page_token;
        }
        let mut seen = std::mem::take(&mut self.seen);
        let printed = if is_first { self.limit } else { usize::MAX };
        let of_round = found.iter().map(|event| (event.event_id, time_of(event)));
        let of_round: Vec<_> = of_round.collect();
        let mut new: Vec<_> = found
            .into_iter()
            .filter(|event| !seen.contains_key(&event.event_id))
            .take(printed)
            .collect();
        new.reverse();
        seen.extend(of_round);
        seen.retain(|_, at| Some(*at + OVERLAP) >= newest);
        (self.seen, self.newest) = (seen, newest);
        Ok(new)
    }
}

fn time_of(event: &pb::AuditEvent) -> OffsetDateTime {
    event.create_time.as_ref().map_or(OffsetDateTime::UNIX_EPOCH, time)
}

fn time(at: &Timestamp) -> OffsetDateTime {
    let nanos = i128::from(at.seconds) * 1_000_000_000 + i128::from(at.nanos);
    OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}
