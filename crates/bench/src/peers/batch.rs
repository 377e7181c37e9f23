//! Redemptions by `BatchRedeem`: a few streams, each with many cards in flight.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use futures_util::future::BoxFuture;
use holdfast::rpc::pb::{
    BatchItem, BatchItemResult, BatchOpen, BatchRedeemRequest, BatchRedeemResponse, Money,
    RedemptionState, batch_item_result::Outcome, batch_redeem_request, batch_redeem_response,
};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Request, Streaming};
use uuid::Uuid;

use super::{
    Peer,
    holdfast::{Client, connect},
};
use crate::postgres::POOL;

/// Streams at once, and cards in flight on each.
const STREAMS: usize = 4;
const STREAM_IN_FLIGHT: usize = 256;
/// Cards that were sent and have no outcome yet, for each that may be in flight. Without a bound the
/// connection's windows take tens of thousands, which would all have to be waited for at the end.
const AHEAD: usize = 2;

/// The results of a batch as they come.
pub(crate) struct Results {
    stream: Streaming<BatchRedeemResponse>,
    permits: Arc<Semaphore>,
}

/// The sending side of a batch. Dropped, it says that there are no more cards.
pub(crate) struct Cards {
    cards: mpsc::Sender<BatchRedeemRequest>,
    permits: Arc<Semaphore>,
    /// In codes, so that each is used once.
    name: Uuid,
    sent: u64,
}

/// Opens a batch.
pub(crate) async fn open(
    client: &mut Client,
    in_flight: usize,
) -> anyhow::Result<(Results, Cards)> {
    open_in(client, POOL, in_flight).await
}

/// The same in any pool.
pub(crate) async fn open_in(
    client: &mut Client,
    pool: &str,
    in_flight: usize,
) -> anyhow::Result<(Results, Cards)> {
    let name = Uuid::now_v7();
    let open = BatchOpen {
        batch_id: name.to_string(),
        pool_id: pool.to_owned(),
        holder: "bench".to_owned(),
        max_in_flight: i32::try_from(in_flight)?,
        ..BatchOpen::default()
    };
    let (cards, outgoing) = mpsc::channel(in_flight);
    let message = Some(batch_redeem_request::Message::Open(open));
    cards.send(BatchRedeemRequest { message }).await?;
    let request = Request::new(ReceiverStream::new(outgoing));
    let stream = client.batch_redeem(request).await?.into_inner();
    let permits = Arc::new(Semaphore::new(AHEAD * in_flight));
    let results = Results { stream, permits: Arc::clone(&permits) };
    Ok((results, Cards { cards, permits, name, sent: 0 }))
}

impl Results {
    /// The next one; `None` when there are no more. May be dropped while it waits.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<BatchItemResult>> {
        while let Some(answer) = self.stream.next().await {
            if let Some(batch_redeem_response::Message::Result(result)) = answer?.message {
                self.permits.add_permits(1);
                return Ok(Some(result));
            }
        }
        // A sender that waits for a permit waits no more.
        self.permits.close();
        Ok(None)
    }
}

impl Cards {
    /// Sends one more card, when there is room for it. `false`: the batch is over.
    pub(crate) async fn send(&mut self) -> bool {
        let Ok(permit) = self.permits.acquire().await else { return false };
        // Given back with the result.
        permit.forget();
        self.sent += 1;
        let item = BatchItem {
            priority: 0,
            not_before: None,
            item_id: format!("item-{:08}", self.sent),
            code: format!("{}{:08}", self.name.simple(), self.sent).to_uppercase(),
            expected: Some(Money { amount_minor: 1000, currency_code: "EUR".to_owned() }),
            selector: None,
        };
        let message = Some(batch_redeem_request::Message::Item(item));
        self.cards.send(BatchRedeemRequest { message }).await.is_ok()
    }
}

/// Fails unless the card of a result was credited.
pub(crate) fn ensure_credited(result: &BatchItemResult) -> anyhow::Result<()> {
    match &result.outcome {
        Some(Outcome::Redemption(redemption)) => {
            let state = redemption.state();
            let failure = redemption.failure.as_ref();
            let why = failure.map_or(&redemption.last_answer, |failure| &failure.message);
            ensure!(state == RedemptionState::Succeeded, "a card is {state:?}: {why}");
            Ok(())
        }
        Some(Outcome::Error(error)) => bail!("a card was refused: {}", error.message),
        None => bail!("a result without an outcome"),
    }
}

/// Redemptions at a server, over a few streams.
pub(crate) struct Batches {
    name: String,
    clients: Vec<Client>,
}

impl Batches {
    pub(crate) async fn connect(url: &str) -> anyhow::Result<Self> {
        let name = format!("Holdfast, {STREAMS} batches, {STREAM_IN_FLIGHT} in flight on each");
        Ok(Self { name, clients: connect(url, STREAMS).await? })
    }
}

impl Peer for Batches {
    fn name(&self) -> &str {
        &self.name
    }

    fn run_for(&mut self, lasting: Duration) -> BoxFuture<'_, anyhow::Result<f64>> {
        let clients = self.clients.clone();
        Box::pin(async move {
            let end = Instant::now() + lasting;
            let done = Arc::new(AtomicU64::new(0));
            let mut streams = JoinSet::new();
            for client in clients {
                streams.spawn(Box::pin(one_stream(client, end, Arc::clone(&done))));
            }
            while let Some(ended) = streams.join_next().await {
                ended.context("a stream panicked")??;
            }
            #[allow(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
            Ok(done.load(Ordering::Relaxed) as f64 / lasting.as_secs_f64())
        })
    }
}

/// Sends cards until `end`, and counts those that were credited until then. Then waits for the rest.
async fn one_stream(mut client: Client, end: Instant, done: Arc<AtomicU64>) -> anyhow::Result<()> {
    let (mut results, mut cards) = open(&mut client, STREAM_IN_FLIGHT).await?;
    let sending = tokio::spawn(async move { while Instant::now() < end && cards.send().await {} });
    while let Some(result) = results.next().await? {
        ensure_credited(&result)?;
        if Instant::now() <= end {
            done.fetch_add(1, Ordering::Relaxed);
        }
    }
    sending.await.context("the sender of cards panicked")
}
