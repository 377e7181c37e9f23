//! A client of a batch.

use std::{collections::HashMap, time::Duration};

use holdfast::rpc::pb::{
    self, batch_item_result::Outcome, batch_redeem_request::Message as Said,
    batch_redeem_response::Message as Told,
};
use prost::Message as _;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::{
    journal::Journal,
    world::{Clients, POOL},
};

/// A batch that is open.
pub(crate) struct Session {
    /// Where items are sent.
    pub(crate) items: mpsc::Sender<pb::BatchRedeemRequest>,
    replies: Streaming<pb::BatchRedeemResponse>,
    journal: Journal,
}

/// What a batch answered, to its end.
pub(crate) struct Ended {
    pub(crate) results: Vec<pb::BatchItemResult>,
    pub(crate) summary: pb::BatchSummary,
}

/// An opening of a batch in [`POOL`].
pub(crate) fn opening(batch_id: &str) -> pb::BatchOpen {
    pb::BatchOpen {
        batch_id: batch_id.to_owned(),
        pool_id: POOL.to_owned(),
        holder: "batcher".to_owned(),
        ..Default::default()
    }
}

pub(crate) fn item(item_id: &str, code: &str) -> pb::BatchItem {
    pb::BatchItem { item_id: item_id.to_owned(), code: code.to_owned(), ..Default::default() }
}

pub(crate) fn said_open(open: pb::BatchOpen) -> pb::BatchRedeemRequest {
    pb::BatchRedeemRequest { message: Some(Said::Open(open)) }
}

pub(crate) fn said_item(item: pb::BatchItem) -> pb::BatchRedeemRequest {
    pb::BatchRedeemRequest { message: Some(Said::Item(item)) }
}

/// Opens a batch, sends the items, and reads all answers.
pub(crate) async fn run(
    clients: &mut Clients,
    open: pb::BatchOpen,
    items: &[pb::BatchItem],
) -> Result<Ended, Status> {
    let session = Session::open(clients, open).await?;
    for item in items {
        session.send(item.clone()).await;
    }
    session.finish().await
}

impl Session {
    pub(crate) async fn open(clients: &mut Clients, open: pb::BatchOpen) -> Result<Self, Status> {
        Self::begin(clients, said_open(open)).await
    }

    /// Opens a stream with any message.
    pub(crate) async fn begin(
        clients: &mut Clients,
        first: pb::BatchRedeemRequest,
    ) -> Result<Self, Status> {
        let (items, stream) = mpsc::channel(1);
        items.send(first).await.unwrap();
        let call = clients.redemptions.batch_redeem(ReceiverStream::new(stream));
        let replies = call.await?.into_inner();
        Ok(Self { items, replies, journal: clients.journal().clone() })
    }

    pub(crate) async fn send(&self, item: pb::BatchItem) {
        self.items.send(said_item(item)).await.unwrap();
    }

    /// The next answer; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Told>, Status> {
        let reply = self.replies.message().await?;
        let told = reply.map(|reply| reply.message.unwrap());
        if let Some(Told::Result(result)) = &told
            && let Some(redemption) = begun(result)
        {
            self.journal.redemption(redemption);
        }
        if let Some(Told::Progress(told)) = &told {
            let sum = [told.in_flight, told.succeeded, told.failed, told.in_doubt, told.rejected];
            assert_eq!(told.received, sum.iter().sum::<i64>(), "{told:?}");
        }
        Ok(told)
    }

    /// The next result.
    pub(crate) async fn result(&mut self) -> pb::BatchItemResult {
        loop {
            match self.next().await.unwrap() {
                Some(Told::Result(result)) => return result,
                Some(Told::Progress(_)) => {}
                end => panic!("the batch ended: {end:?}"),
            }
        }
    }

    /// Sends the items while it reads the results, until the end, a fault, a pause that is too long, or
    /// until so many results have come.
    pub(crate) async fn results_until_it_breaks(
        mut self,
        items: Vec<pb::BatchItem>,
        patience: Duration,
        leaves_after: Option<usize>,
    ) -> Vec<pb::BatchItemResult> {
        let (closed, _) = mpsc::channel(1);
        let sender = std::mem::replace(&mut self.items, closed);
        tokio::spawn(async move {
            for item in items {
                if sender.send(said_item(item)).await.is_err() {
                    return;
                }
            }
        });
        let mut results = Vec::new();
        while leaves_after.is_none_or(|count| results.len() < count) {
            match timeout(patience, self.next()).await {
                Ok(Ok(Some(Told::Result(result)))) => results.push(result),
                Ok(Ok(Some(Told::Progress(_)))) => {}
                _ => break,
            }
        }
        results
    }

    /// Sends no more, and reads to the end: the summary comes last, and its counts are those of the
    /// results that came since the batch was opened.
    pub(crate) async fn finish(mut self) -> Result<Ended, Status> {
        let (closed, _) = mpsc::channel(1);
        self.items = closed;
        let mut results = Vec::new();
        let summary = loop {
            match self.next().await? {
                Some(Told::Result(result)) => results.push(result),
                Some(Told::Progress(_)) => {}
                Some(Told::Summary(summary)) => break summary,
                None => panic!("no summary"),
            }
        };
        assert!(self.next().await?.is_none(), "the summary is the last message");
        Ok(Ended { results, summary })
    }
}

impl Ended {
    /// The results by item; each item has exactly one, and the summary counts them.
    pub(crate) fn by_item(&self) -> HashMap<String, &pb::BatchItemResult> {
        let mut by_item = HashMap::new();
        for result in &self.results {
            let before = by_item.insert(result.item_id.clone(), result);
            assert!(before.is_none(), "a second result of {}", result.item_id);
        }
        let states = |wanted: &[pb::RedemptionState]| -> i64 {
            let results = self.results.iter().filter_map(begun);
            results.filter(|r| wanted.contains(&r.state())).count().try_into().unwrap()
        };
        use pb::RedemptionState::{Failed, InDoubt, NeedsReview, Succeeded};
        let rejected = self.results.iter().filter(|result| begun(result).is_none()).count();
        let failures = self.results.iter().filter_map(begun).filter_map(|it| it.failure.as_ref());
        let retryable = failures.filter(|failure| failure.retryable).count();
        let expected = pb::BatchSummary {
            received: self.results.len().try_into().unwrap(),
            in_flight: 0,
            succeeded: states(&[Succeeded]),
            failed: states(&[Failed]),
            in_doubt: states(&[InDoubt, NeedsReview]),
            rejected: rejected.try_into().unwrap(),
            retryable: retryable.try_into().unwrap(),
        };
        assert_eq!(self.summary, expected);
        by_item
    }
}

/// The redemption of an item that was begun.
pub(crate) fn begun(result: &pb::BatchItemResult) -> Option<&pb::Redemption> {
    match result.outcome.as_ref().unwrap() {
        Outcome::Redemption(redemption) => Some(redemption),
        Outcome::Error(_) => None,
    }
}

/// The redemption of an item that was credited.
pub(crate) fn credited(result: &pb::BatchItemResult) -> &pb::Redemption {
    let redemption = begun(result).unwrap_or_else(|| panic!("not begun: {result:?}"));
    assert_eq!(redemption.state(), pb::RedemptionState::Succeeded, "{redemption:?}");
    redemption
}

/// The error of an item that was not begun.
pub(crate) fn refusal(result: &pb::BatchItemResult) -> Status {
    match result.outcome.as_ref().unwrap() {
        Outcome::Redemption(redemption) => panic!("begun: {redemption:?}"),
        Outcome::Error(error) => rich(error),
    }
}

/// An error inside a reply as the error of a call.
pub(crate) fn rich(error: &tonic_types::Status) -> Status {
    let code = Code::from_i32(error.code);
    Status::with_details(code, error.message.clone(), error.encode_to_vec().into())
}
