//! A batch from its opening to its summary, over as many connections as it takes.

use std::{
    fmt,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::Status;

use super::{
    Batch, CardFile, Outcome, Progress, Tally,
    feed::{self, Survey},
    index::Index,
    item_key::ItemNames,
    reasons::Reasons,
    results::Results,
    settling,
};
use crate::{
    cli::shared::{
        client::{RpcError, Server},
        lost::{is_lost, wait},
        output::Closed,
        pools::pool_currency,
        upload::upload,
    },
    rpc::pb::{self, batch_redeem_request, batch_redeem_response::Message},
};

/// Items that may wait to be sent. Beyond that, reading the file waits for the server.
const READ_AHEAD: usize = 64;

/// A batch that was checked as far as possible before it is opened.
pub(in crate::cli) struct Ready {
    batch: Batch,
    pub(super) cards: CardFile,
    currency: String,
    /// The names of its items.
    pub(super) names: Arc<ItemNames>,
    /// The rows of the file.
    pub(super) index: Arc<Index>,
    /// What the file holds.
    pub(super) file: Survey,
}

/// The counts of a batch, also of one that did not go through.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Done {
    /// What the file held.
    pub(in crate::cli) file: Survey,
    /// The items' outcomes.
    pub(in crate::cli) tally: Tally,
    /// Why they are not all plainly credited.
    pub(super) reasons: Reasons,
    /// How long it took, from the first opening to the summary.
    pub(in crate::cli) took: Duration,
}

impl Done {
    /// Whether something is left to do, for a person or for another run.
    pub(super) fn wants_a_look(&self) -> bool {
        self.file.bad_rows > 0 || self.tally.wants_a_look()
    }

    /// Items a second.
    pub(in crate::cli) fn rate(&self) -> f64 {
        // Exact up to 2^53 items.
        self.tally.total() as f64 / self.took.as_secs_f64().max(0.001)
    }
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = &self.file;
        write!(
            f,
            "{}; {} bad rows; {:.1} s, {:.0} items/s",
            self.tally,
            file.bad_rows,
            self.took.as_secs_f64(),
            self.rate()
        )?;
        match file.skipped {
            0 => Ok(()),
            rows => write!(f, "; {rows} rows of other pools skipped"),
        }?;
        match file.blank {
            0 => Ok(()),
            rows => write!(f, "; {rows} blank rows skipped"),
        }
    }
}

/// How one connection ended.
enum End {
    /// With the summary, after this many items were sent.
    Summary(u64),
    /// Before the summary; opening the batch again may help. And whether the server said anything before.
    Lost(Status, bool),
}

/// Checks that there is such a pool, and reads the file through, naming its bad rows.
pub(in crate::cli) async fn prepare(
    server: &Server,
    batch: &Batch,
    cards: &CardFile,
    progress: &Progress,
) -> anyhow::Result<Ready> {
    let currency = pool_currency(server, &batch.pool_id).await?;
    let cards = cards.of_pool(&batch.pool_id, &currency);
    let (pool, id) = (&batch.pool_id, &batch.batch_id);
    let names = ItemNames::new(pool.clone(), id.clone(), batch.item_key.clone());
    let survey = || feed::survey(&cards, pool, &names, progress);
    let (file, index) = tokio::task::block_in_place(survey)?;
    let (names, index) = (Arc::new(names), Arc::new(index));
    Ok(Ready { batch: batch.clone(), cards, currency, names, index, file })
}

/// Runs a batch. `each` gets every item's outcome, once; when it fails, or when `stopped` answers, the
/// call is broken off and nothing more is begun. While it waits for what is in doubt, that ends the wait alone, unless
/// the output was closed. The results so far are returned in any case, and beside it
/// whether the batch went through.
pub(in crate::cli) async fn redeem(
    server: &Server,
    ready: &Ready,
    progress: &Progress,
    stopped: impl Future<Output = anyhow::Error>,
    each: impl FnMut(&Outcome) -> anyhow::Result<()>,
) -> (Done, anyhow::Result<()>) {
    progress.set_total(ready.file.items);
    let begun = Instant::now();
    let mut results = Results::of(Arc::clone(&ready.index));
    let mut each = Each { each, is_broken: false };
    let mut stopped = pin!(stopped);
    let sent = tokio::select! {
        sent = through(server, ready, progress, &mut results, &mut each) => sent,
        why = &mut stopped => Err(why),
    };
    let sent = match sent {
        Ok(sent) => {
            let settled = settled(server, ready, progress, &mut results, &mut each, stopped).await;
            settled.map(|()| sent)
        }
        Err(why) => Err(why),
    };
    let answered = results.len() as u64;
    let (held, tally, reasons) = results.finish();
    // What was held back is told even when the batch did not go through.
    let told = if each.is_broken { Ok(()) } else { held.iter().try_for_each(|it| each.tell(it)) };
    let done = Done { file: ready.file, tally, reasons, took: begun.elapsed() };
    (done, sent.and_then(|sent| told.and_then(|()| check(ready, sent, answered))))
}

/// Whether every row was sent, and every item that was sent has an outcome.
fn check(ready: &Ready, sent: u64, answered: u64) -> anyhow::Result<()> {
    anyhow::ensure!(
        sent == ready.file.items,
        "the file had {} items when it was read first, and {sent} when they were sent: it was changed \
         meanwhile",
        ready.file.items
    );
    anyhow::ensure!(answered == sent, "{sent} items were sent, and {answered} have an outcome");
    Ok(())
}

/// What gets the outcomes, until it fails.
struct Each<E> {
    each: E,
    is_broken: bool,
}

impl<E: FnMut(&Outcome) -> anyhow::Result<()>> Each<E> {
    fn tell(&mut self, outcome: &Outcome) -> anyhow::Result<()> {
        // A reader may be slow: the connection is kept alive meanwhile.
        let told = tokio::task::block_in_place(|| (self.each)(outcome));
        self.is_broken |= told.is_err();
        told
    }
}

/// Waits for what is in doubt when the batch has gone through, until it is told to stop.
async fn settled(
    server: &Server,
    ready: &Ready,
    progress: &Progress,
    results: &mut Results,
    each: &mut Each<impl FnMut(&Outcome) -> anyhow::Result<()>>,
    stopped: impl Future<Output = anyhow::Error>,
) -> anyhow::Result<()> {
    let Batch { pool_id, wait, .. } = &ready.batch;
    let in_doubt = results.in_doubt();
    let waits = settling::wait(server, pool_id, in_doubt, *wait, progress, |result| match results
        .note(result)
    {
        Some(outcome) => each.tell(&outcome),
        None => Ok(()),
    });
    tokio::select! {
        biased;
        settled = waits => settled,
        why = stopped => match why.is::<Closed>() {
            true => Err(why),
            // The batch has gone through: its results are whole.
            false => {
                progress.note(format_args!("{why}: no longer waiting for what is in doubt"));
                Ok(())
            }
        },
    }
}

/// Opens the batch until it has gone through. Answers how many items were sent.
async fn through(
    server: &Server,
    ready: &Ready,
    progress: &Progress,
    results: &mut Results,
    each: &mut Each<impl FnMut(&Outcome) -> anyhow::Result<()>>,
) -> anyhow::Result<u64> {
    let (mut lost, mut since) = (0, Instant::now());
    loop {
        let (status, was_heard) = match once(server, ready, progress, results, each).await? {
            End::Summary(sent) => return Ok(sent),
            End::Lost(status, was_heard) => (status, was_heard),
        };
        // Items may take longer than a connection lasts: the server tells its progress meanwhile.
        if was_heard || lost == 0 {
            (lost, since) = (0, Instant::now());
        }
        lost += 1;
        let wait = wait(lost, &status);
        let limit = ready.batch.reconnect_for;
        if since.elapsed() + wait > limit {
            return Err(anyhow::Error::new(RpcError(status)).context(format!(
                "the connection was lost {lost} times in a row, and did not come back within {} \
                 (--reconnect-for)",
                humantime::format_duration(limit)
            )));
        }
        progress.note(format_args!(
            "the connection was lost ({}); opening the batch again in {}, and for {} at the most",
            status.message(),
            humantime::format_duration(wait),
            humantime::format_duration(limit)
        ));
        tokio::time::sleep(wait).await;
    }
}

/// One connection.
async fn once(
    server: &Server,
    ready: &Ready,
    progress: &Progress,
    results: &mut Results,
    each: &mut Each<impl FnMut(&Outcome) -> anyhow::Result<()>>,
) -> anyhow::Result<End> {
    let open = batch_redeem_request::Message::Open(ready.batch.open()?);
    let open = pb::BatchRedeemRequest { message: Some(open) };
    // However this function ends, the guard ends the reading of the file.
    let (items, receive, ended) = upload(READ_AHEAD);
    let (cards, batch) = (ready.cards.clone(), ready.batch.clone());
    let (currency, names) = (ready.currency.clone(), Arc::clone(&ready.names));
    let feed = move || feed::feed(&cards, &batch, &currency, &names, &items);
    let feed = tokio::task::spawn_blocking(feed);

    let requests = tokio_stream::once(open).chain(receive);
    let mut was_heard = false;
    let end = converse(server, requests, progress, results, each, &mut was_heard).await;
    drop(ended);
    let sent = feed.await.context("reading the file ended early")?;
    match end? {
        Ok(()) => Ok(End::Summary(sent?)),
        Err(status) if is_lost(&status) => Ok(End::Lost(status, was_heard)),
        Err(status) => Err(RpcError(status).into()),
    }
}

/// The opening, and then the items.
type Requests = tokio_stream::adapters::Chain<
    tokio_stream::Once<pb::BatchRedeemRequest>,
    ReceiverStream<pb::BatchRedeemRequest>,
>;

/// Takes what the server sends, up to the summary. The outer error is ours, the inner the call's.
async fn converse(
    server: &Server,
    requests: Requests,
    progress: &Progress,
    results: &mut Results,
    each: &mut Each<impl FnMut(&Outcome) -> anyhow::Result<()>>,
    was_heard: &mut bool,
) -> anyhow::Result<Result<(), Status>> {
    let call = server.redemptions().batch_redeem(requests).await;
    let mut replies = match call {
        Ok(reply) => reply.into_inner(),
        Err(status) => return Ok(Err(status)),
    };
    loop {
        let message = match replies.message().await {
            Ok(Some(reply)) => reply.message,
            Ok(None) => return Ok(Err(ended_early())),
            Err(status) => return Ok(Err(status)),
        };
        *was_heard = true;
        match message {
            Some(Message::Result(result)) => {
                if let Some(outcome) = results.note(result) {
                    each.tell(&outcome)?;
                }
            }
            Some(Message::Progress(now)) => progress.show(&now),
            Some(Message::Summary(_)) => return Ok(Ok(())),
            // A kind of message that a later server knows: not needed to go on.
            None => {}
        }
    }
}

/// A stream that ends without a summary is one that was cut off.
#[expect(clippy::disallowed_methods, reason = "no server made it")]
fn ended_early() -> Status {
    Status::unavailable("the stream ended without a summary")
}
