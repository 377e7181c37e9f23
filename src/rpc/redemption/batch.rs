//! Messages of `BatchRedeem`, read and written.

use std::{sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt as _};
use prost::Message as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::{message::redemption_message, selector::read_selector};
use crate::{
    domain::{
        id::{BatchId, Holder, ItemId, PoolId},
        money::Currency,
        principal::Authority,
        redemption::CardCode,
    },
    rpc::{
        convert::{Fields, echo},
        message::MESSAGE_TIMEOUT,
        pb::{
            self, batch_item_result::Outcome, batch_redeem_request::Message,
            batch_redeem_response::Message as Told,
        },
        status::{rich, shutting_down, status},
    },
    service::{
        Error,
        batch::{Batch, BatchEvent, BatchItem, BatchOpen, Incoming},
        error::Violation,
    },
};

/// Items under way at once, when the client does not say.
const DEFAULT_IN_FLIGHT: i32 = 64;
/// The most items under way at once.
const MAX_IN_FLIGHT: i32 = 1024;
/// How long an item waits for an account, when the client does not say.
const DEFAULT_ITEM_TIMEOUT: Duration = Duration::from_secs(30);
const MIN_ITEM_TIMEOUT: Duration = Duration::from_secs(1);
const MAX_ITEM_TIMEOUT: Duration = Duration::from_secs(600);

/// Reads the opening, and then lets the batch read the items.
pub(super) async fn open(
    batch: &Batch,
    mut messages: Streaming<pb::BatchRedeemRequest>,
    by: Authority,
) -> Result<impl Stream<Item = Result<pb::BatchRedeemResponse, Status>> + Send + 'static, Status> {
    // It is complete: the call would not have been admitted otherwise.
    let first = tokio::select! {
        first = messages.next() => first.transpose()?,
        () = batch.closing().cancelled() => return Err(shutting_down()),
    };
    let open = read_open(first.and_then(|first| first.message), by).map_err(|e| status(&e))?;
    let items = messages.scan((), |(), message| {
        std::future::ready(match message {
            Ok(message) => Some(Ok(read_item(message.message))),
            // Also when the client broke off: a summary would say that all was done.
            Err(error) => Some(Err(unreadable(&error))),
        })
    });
    let (pool, events) = batch.open(open, items).await.map_err(|e| status(&e))?;
    Ok(ReceiverStream::new(events).map(move |event| tell(event, pool.currency)))
}

/// The error for a message that could not be read.
fn unreadable(error: &Status) -> Error {
    match error.code() {
        Code::DeadlineExceeded => Error::RequestIncomplete(MESSAGE_TIMEOUT),
        Code::ResourceExhausted => Error::Overloaded,
        _ => Error::Invalid(vec![Violation::new("message", error.message())]),
    }
}

pub(in crate::rpc) fn read_open(
    message: Option<Message>,
    by: Authority,
) -> Result<BatchOpen, Error> {
    let mut fields = Fields::default();
    let open = match message {
        Some(Message::Open(open)) => open,
        _ => {
            fields.refuse("open", "must be the first message of the stream");
            return fields.finish(None);
        }
    };
    let batch_id = fields.id("open.batch_id", &open.batch_id, BatchId::parse);
    let pool_id = fields.id("open.pool_id", &open.pool_id, PoolId::parse);
    let holder = fields.id("open.holder", &open.holder, Holder::parse);
    let selection = read_selector(&mut fields, "open.selector", open.selector);
    let max_in_flight = match open.max_in_flight {
        0 => DEFAULT_IN_FLIGHT,
        1..=MAX_IN_FLIGHT => open.max_in_flight,
        _ => {
            fields.refuse("open.max_in_flight", format!("must be between 0 and {MAX_IN_FLIGHT}"));
            0
        }
    };
    let item_timeout =
        fields.duration("open.item_timeout", open.item_timeout, MIN_ITEM_TIMEOUT, MAX_ITEM_TIMEOUT);
    let read = batch_id.zip(pool_id).zip(holder).map(|((batch_id, pool_id), holder)| BatchOpen {
        batch_id,
        pool_id,
        holder,
        by: Arc::new(by),
        selection,
        max_in_flight: usize::try_from(max_in_flight).unwrap_or(1),
        item_timeout: item_timeout.unwrap_or(DEFAULT_ITEM_TIMEOUT),
    });
    fields.finish(read)
}

pub(in crate::rpc) fn read_item(message: Option<Message>) -> Incoming {
    let mut fields = Fields::default();
    let item = match message {
        Some(Message::Item(item)) => item,
        Some(Message::Open(_)) => {
            fields.refuse("open", "must be the first message only");
            return malformed(String::new(), fields);
        }
        None => {
            fields.refuse("item", "must be set");
            return malformed(String::new(), fields);
        }
    };
    let bytes = item.encoded_len();
    let item_id = fields.id("item.item_id", &item.item_id, ItemId::parse);
    let code = fields.id("item.code", &item.code, CardCode::parse);
    let expected = fields.money("item.expected", item.expected, 1);
    let selection = read_selector(&mut fields, "item.selector", item.selector);
    let priority = fields.priority("item.priority", item.priority);
    let not_before = fields.time("item.not_before", item.not_before);
    let read = item_id.zip(code).map(|(item_id, code)| BatchItem {
        item_id,
        code,
        expected,
        selection,
        priority,
        not_before,
        bytes,
    });
    match fields.finish(read) {
        Ok(item) => Incoming::Item(item),
        Err(error) => Incoming::Malformed(echo(&item.item_id), error),
    }
}

fn malformed(item_id: String, fields: Fields) -> Incoming {
    let error = fields.finish(None::<()>).err();
    Incoming::Malformed(item_id, error.unwrap_or(Error::Internal("a good item was refused")))
}

fn tell(event: BatchEvent, currency: Currency) -> Result<pb::BatchRedeemResponse, Status> {
    let message = match event {
        BatchEvent::Result { item_id, outcome } => {
            let (outcome, replayed) = match *outcome {
                Ok(redeemed) => (
                    Outcome::Redemption(redemption_message(&redeemed.redemption, currency)),
                    redeemed.replayed,
                ),
                Err(error) => (Outcome::Error(rich(&error)), false),
            };
            Told::Result(pb::BatchItemResult { item_id, outcome: Some(outcome), replayed })
        }
        BatchEvent::Progress(counts) => Told::Progress(pb::BatchProgress {
            received: counts.received,
            in_flight: counts.in_flight,
            succeeded: counts.succeeded,
            failed: counts.failed,
            in_doubt: counts.in_doubt,
            rejected: counts.rejected,
            retryable: counts.retryable,
            held_back: counts.held_back,
        }),
        BatchEvent::Summary(counts) => Told::Summary(pb::BatchSummary {
            received: counts.received,
            in_flight: counts.in_flight,
            succeeded: counts.succeeded,
            failed: counts.failed,
            in_doubt: counts.in_doubt,
            rejected: counts.rejected,
            retryable: counts.retryable,
        }),
        BatchEvent::Stopped(error) => return Err(status(&error)),
    };
    Ok(pb::BatchRedeemResponse { message: Some(message) })
}
