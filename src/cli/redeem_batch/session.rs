//! A batch from its opening to its summary, over as many connections as it takes.

use std::{
    error::Error as _,
    fmt,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::{
    Batch, Outcome, Progress, Tally,
    feed::{self, Survey},
    results::Results,
};
use crate::{
    cli::{
        client::{RpcError, Server},
        plan::pool_currency,
    },
    rpc::pb::{self, batch_redeem_request, batch_redeem_response::Message},
};

/// Connections in a row that may be lost without a single new outcome.
const MAX_LOST: u32 = 6;
/// How long to wait before the first try to connect again. Doubled with each that fails.
const FIRST_WAIT: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 250 });
/// The longest wait, also when the server asks for more.
const MAX_WAIT: Duration = Duration::from_secs(10);
/// Items that may wait to be sent. Beyond that, reading the file waits for the server.
const READ_AHEAD: usize = 64;

/// What a batch came to.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Done {
    /// What the file held.
    pub(in crate::cli) file: Survey,
    /// The items' outcomes.
    pub(in crate::cli) tally: Tally,
    /// How long it took, from the first opening to the summary.
    pub(in crate::cli) took: Duration,
}

impl Done {
    /// Whether a row has no definite outcome.
    pub(super) fn wants_a_look(&self) -> bool {
        self.file.bad_rows + self.tally.in_doubt + self.tally.rejected > 0
    }

    /// Items a second.
    pub(in crate::cli) fn rate(&self) -> f64 {
        // Exact up to 2^53 items.
        self.tally.total() as f64 / self.took.as_secs_f64().max(0.001)
    }
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, tally) = (&self.file, &self.tally);
        write!(
            f,
            "{} items: {} succeeded, {} failed, {} in doubt, {} rejected; {} bad rows; {:.1} s, \
             {:.0} items/s",
            tally.total(),
            tally.succeeded,
            tally.failed,
            tally.in_doubt,
            tally.rejected,
            file.bad_rows,
            self.took.as_secs_f64(),
            self.rate()
        )?;
        match file.skipped {
            0 => Ok(()),
            rows => write!(f, "; {rows} rows of other pools skipped"),
        }
    }
}

/// How one connection ended.
enum End {
    /// With the summary, after this many items were sent.
    Summary(u64),
    /// Before the summary; opening the batch again may help.
    Lost(Status),
}

/// Runs a batch. `each` gets every item's outcome, once.
pub(in crate::cli) async fn redeem(
    server: &Server,
    batch: &Batch,
    progress: &Progress,
    mut each: impl FnMut(&Outcome) -> anyhow::Result<()>,
) -> anyhow::Result<Done> {
    let currency = pool_currency(server, &batch.pool_id).await?;
    let file = tokio::task::block_in_place(|| feed::survey(batch, progress))?;
    progress.set_total(file.items);

    let begun = Instant::now();
    let mut results = Results::default();
    let sent = through(server, batch, &currency, progress, &mut results, &mut each).await;
    let known = results.len() as u64;
    let (held, tally) = results.finish();
    // What was held back is told even when the batch did not go through.
    held.iter().try_for_each(each)?;
    let sent = sent?;
    anyhow::ensure!(
        known == sent,
        "{sent} items were sent, and {known} have an outcome: run the same command again"
    );
    Ok(Done { file, tally, took: begun.elapsed() })
}

/// Opens the batch until it has gone through. Answers how many items were sent.
async fn through(
    server: &Server,
    batch: &Batch,
    currency: &str,
    progress: &Progress,
    results: &mut Results,
    each: &mut impl FnMut(&Outcome) -> anyhow::Result<()>,
) -> anyhow::Result<u64> {
    let mut lost = 0;
    loop {
        let known = results.len();
        let status = match once(server, batch, currency, progress, results, each).await? {
            End::Summary(sent) => return Ok(sent),
            End::Lost(status) => status,
        };
        lost = if results.len() > known { 1 } else { lost + 1 };
        if lost >= MAX_LOST {
            return Err(anyhow::Error::new(RpcError(status)).context(format!(
                "the connection was lost {lost} times in a row; run the same command again to go on"
            )));
        }
        let wait = wait(lost, &status);
        progress.note(format_args!(
            "the connection was lost ({}); opening the batch again in {}",
            status.message(),
            humantime::format_duration(wait)
        ));
        tokio::time::sleep(wait).await;
    }
}

/// One connection.
async fn once(
    server: &Server,
    batch: &Batch,
    currency: &str,
    progress: &Progress,
    results: &mut Results,
    each: &mut impl FnMut(&Outcome) -> anyhow::Result<()>,
) -> anyhow::Result<End> {
    let (send, receive) = mpsc::channel(READ_AHEAD);
    let open = batch_redeem_request::Message::Open(batch.open()?);
    send.send(pb::BatchRedeemRequest { message: Some(open) }).await?;
    let (fed, currency) = (batch.clone(), currency.to_owned());
    let feed = tokio::task::spawn_blocking(move || feed::feed(&fed, &currency, &send));

    let end = converse(server, receive, progress, results, each).await;
    // The call has ended, and so the channel: the feed ends too, if it has not already.
    let sent = feed.await.context("reading the file stopped short")??;
    match end? {
        Ok(()) => Ok(End::Summary(sent)),
        Err(status) if is_lost(&status) => Ok(End::Lost(status)),
        Err(status) => Err(RpcError(status).into()),
    }
}

/// Takes what the server sends, up to the summary. The outer error is ours, the inner the call's.
async fn converse(
    server: &Server,
    requests: mpsc::Receiver<pb::BatchRedeemRequest>,
    progress: &Progress,
    results: &mut Results,
    each: &mut impl FnMut(&Outcome) -> anyhow::Result<()>,
) -> anyhow::Result<Result<(), Status>> {
    let call = server.redemptions().batch_redeem(ReceiverStream::new(requests)).await;
    let mut replies = match call {
        Ok(reply) => reply.into_inner(),
        Err(status) => return Ok(Err(status)),
    };
    loop {
        let message = match replies.message().await {
            Ok(Some(reply)) => reply.message,
            Ok(None) => return Ok(Err(Status::unavailable("the stream ended without a summary"))),
            Err(status) => return Ok(Err(status)),
        };
        match message {
            Some(Message::Result(result)) => {
                if let Some(outcome) = results.note(result) {
                    each(&outcome)?;
                }
            }
            Some(Message::Progress(now)) => progress.show(&now),
            Some(Message::Summary(_)) => return Ok(Ok(())),
            // A kind of message that a later server knows: not needed to go on.
            None => {}
        }
    }
}

/// Whether opening the batch again may help: the server says so, or the connection broke. Errors
/// that a server sent have no source; those of the connection have.
fn is_lost(status: &Status) -> bool {
    status.code() == Code::Unavailable
        || status.source().is_some()
        || status.get_details_retry_info().is_some()
}

fn wait(lost: u32, status: &Status) -> Duration {
    let ours = FIRST_WAIT * 2_u32.saturating_pow(lost.saturating_sub(1));
    let asked = status.get_details_retry_info().and_then(|info| info.retry_delay);
    ours.max(asked.unwrap_or_default()).min(MAX_WAIT)
}
