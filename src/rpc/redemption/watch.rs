//! Messages of `WatchRedemptions`, read and written.

use futures_util::{Stream, stream};
use tonic::Status;

use super::message::reversed_message;
use crate::{
    domain::{id::PoolId, money::Currency, outcomes::Position, principal::Authority},
    rpc::{
        convert::Fields,
        pb,
        status::{shutting_down, status},
    },
    service::{
        Error,
        watching::{After, WatchEvent, Watching},
    },
};

/// What stands for the time of the call.
const NOW: &str = "now";

/// Tells outcomes until the caller leaves, or the server stops: then at once, whatever was not taken yet.
pub(super) async fn open(
    watching: &Watching,
    request: pb::WatchRedemptionsRequest,
    by: Authority,
) -> Result<impl Stream<Item = Result<pb::WatchRedemptionsResponse, Status>> + Send + 'static, Status>
{
    let (pool_id, after) = read(request).map_err(|e| status(&e))?;
    let (pool, events) = watching.open(&pool_id, after, by).await.map_err(|e| status(&e))?;
    let closing = watching.closing().clone();
    Ok(stream::unfold(Some(events), move |events| {
        let closing = closing.clone();
        async move {
            let mut events = events?;
            let event = tokio::select! {
                biased;
                () = closing.cancelled() => return Some((Err(shutting_down()), None)),
                event = events.recv() => event?,
            };
            let told = tell(event, pool.currency);
            let rest = told.is_ok().then_some(events);
            Some((told, rest))
        }
    }))
}

pub(in crate::rpc) fn read(request: pb::WatchRedemptionsRequest) -> Result<(PoolId, After), Error> {
    let mut fields = Fields::default();
    let pool_id = fields.id("pool_id", &request.pool_id, PoolId::parse);
    let after = match (&*request.after, &pool_id) {
        ("", _) => Some(After::Nothing),
        (NOW, _) => Some(After::Now),
        // The cursor cannot be compared with it.
        (_, None) => None,
        (cursor, Some(pool_id)) => match Position::of_cursor(pool_id, cursor) {
            Ok(position) => Some(After::Position(Box::new(position))),
            Err(bad) => {
                fields.refuse("after", bad.to_string());
                None
            }
        },
    };
    fields.finish(pool_id.zip(after))
}

fn tell(event: WatchEvent, currency: Currency) -> Result<pb::WatchRedemptionsResponse, Status> {
    match event {
        WatchEvent::Outcome(told, position) => {
            let cursor = position.cursor(&told.0.pool_id);
            let redemption = Some(reversed_message(&told, currency));
            Ok(pb::WatchRedemptionsResponse { redemption, cursor })
        }
        WatchEvent::Nothing(cursor) => {
            Ok(pb::WatchRedemptionsResponse { redemption: None, cursor })
        }
        WatchEvent::Ended(error) => Err(status(&error)),
    }
}
