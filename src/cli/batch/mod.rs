//! `holdfast redeem-batch`: redeems the cards of a file.
//!
//! The file is read twice: once to name its bad rows and count the good ones, and once to send
//! them. When the connection is lost, the same batch is opened again and everything is sent again:
//! the server answers what it knows, and redeems only the rest. Running the command again does the
//! same.
//!
//! Results in a file replace it when the batch has gone through, and not before (`output::file`). When
//! the output cannot be written, is closed, or the command is interrupted, the call is broken off: the
//! server begins nothing more.
//!
//! Exit code: 0 when every row has an outcome, credited as expected, redeemed already for another request,
//! or refused because of the card; 3
//! when something is left to do (see [`Tally`] and the bad rows); 1 when the batch did not go through.

mod advice;
mod feed;
mod outcome;
mod progress;
mod reasons;
mod results;
mod session;
mod tally;
#[cfg(test)]
mod tests;

use std::{
    io::IsTerminal as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use tokio_util::sync::CancellationToken;
use tonic::Code;

#[cfg(feature = "fuzzing")]
pub(super) use self::feed::item;
pub(super) use self::{
    feed::CardFile,
    outcome::Outcome,
    progress::Progress,
    session::{Done, prepare, redeem},
    tally::Tally,
};
use super::shared::{
    client::{RpcError, ServerArgs, wire},
    output::{Closed, Draft, FormatArgs, Rows, Sink, Target, check_stdout, note},
    parse,
    stop::Stop,
};
use crate::{
    config::parse_duration,
    domain::id::{BatchId, Holder, PlanId, PoolId},
    rpc::pb,
};

/// The exit code of a batch that went through with something left to do.
const SOMETHING_LEFT: u8 = 3;

#[derive(Args, Debug)]
#[command(
    after_help = "Exit code: 0 when every row has an outcome (credited as expected, redeemed \
    already for another request, or refused because of the card); 3 when some rows are bad, were rejected \
    for another reason, have no known outcome yet, were \
    credited with another amount than expected, or failed for another reason than the card (the \
    provider was down or busy) and are not spent; 1 for errors. Running the same command again goes on \
    with what is not done yet, and redeems again what failed and is not spent."
)]
pub(super) struct RedeemBatchArgs {
    /// The file: CSV with a header, columns code (required), item_id, amount_minor, currency_code,
    /// pool_id (rows of other pools are skipped).
    file: PathBuf,
    /// The pool that the cards are for.
    #[arg(long, value_parser = parse::pool)]
    pool: PoolId,
    /// Names the batch in its pool: 1 to 64 letters, digits, '.', '_' and '-'.
    #[arg(long, value_parser = parse::batch)]
    batch_id: BatchId,
    /// Who asks, as kept in the accounts' events: 1 to 256 characters.
    #[arg(long, default_value = "redeem-batch", value_parser = parse::holder)]
    holder: Holder,
    /// How many items may be under way at once: 1 to 1024.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(i32).range(1..=1024))]
    max_in_flight: i32,
    /// How long an item waits for an account to be free: 1s to 10m.
    #[arg(long, default_value = "30s", value_parser = parse_duration)]
    item_timeout: Duration,
    /// Only accounts of this plan, or of none.
    #[arg(long, value_parser = parse::plan)]
    plan: Option<PlanId>,
    /// Write the results to this file (as CSV, unless --format says otherwise). It is replaced when the
    /// batch has gone through; of one that failed, the results are kept beside it.
    #[arg(long)]
    output: Option<PathBuf>,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    server: ServerArgs,
}

/// A batch to run.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    /// The pool.
    pub(super) pool_id: PoolId,
    /// Its name.
    pub(super) batch_id: BatchId,
    /// Who asks.
    pub(super) holder: Holder,
    /// Which accounts may be picked.
    pub(super) plan: Option<PlanId>,
    /// How many items may be under way at once.
    pub(super) max_in_flight: i32,
    /// How long an item waits for an account.
    pub(super) item_timeout: Duration,
}

impl Batch {
    fn open(&self) -> anyhow::Result<pb::BatchOpen> {
        let selector = self
            .plan
            .as_ref()
            .map(|plan| pb::AccountSelector { plan_id: plan.to_string(), ..Default::default() });
        Ok(pb::BatchOpen {
            batch_id: self.batch_id.to_string(),
            pool_id: self.pool_id.to_string(),
            holder: self.holder.to_string(),
            selector,
            max_in_flight: self.max_in_flight,
            item_timeout: wire(Some(self.item_timeout))?,
        })
    }
}

/// Runs a file's batch, and prints each item's outcome.
pub(super) async fn run(
    args: RedeemBatchArgs,
    stop: impl FnOnce() -> anyhow::Result<Stop>,
) -> anyhow::Result<ExitCode> {
    let target = match &args.output {
        Some(path) => Some(Target::check(path, &[&args.file])?),
        None => check_stdout(&args.file).map(|()| None)?,
    };
    let cards = CardFile::open(&args.file)?;
    let server = args.server.connect().await?;
    let batch = Batch {
        pool_id: args.pool,
        batch_id: args.batch_id,
        holder: args.holder,
        plan: args.plan,
        max_in_flight: args.max_in_flight,
        item_timeout: args.item_timeout,
    };
    let progress = Progress::new(batch.pool_id.to_string());
    let ready = prepare(&server, &batch, &cards, &progress).await?;
    let file = ready.file;
    anyhow::ensure!(
        file.items + file.bad_rows > 0,
        "none of the file's {} rows is for pool {}: nothing was redeemed",
        file.skipped,
        batch.pool_id
    );
    let (format, (sink, draft)) = match target {
        Some(target) => (args.format.for_file(), target.open()?),
        None => (args.format.for_stdout(), (Sink::stdout(), None)),
    };
    let interrupted = on_stop(stop()?, draft.as_ref().map(Draft::path));
    let mut rows = Rows::new(format, outcome::COLUMNS, sink);
    let closed = rows.closed();
    let stopped = async {
        tokio::select! {
            () = interrupted.cancelled() => anyhow::anyhow!("interrupted"),
            () = closed => Closed.into(),
        }
    };
    // Rows and the bar share the terminal: each must stay on lines of its own.
    let shared = args.output.is_none() && std::io::stdout().is_terminal();
    let mut is_broken = false;
    let (done, ended) = redeem(&server, &ready, &progress, stopped, |outcome| {
        let row = outcome.row();
        let pushed = if shared { progress.aside(|| rows.push(&row)) } else { rows.push(&row) };
        is_broken = pushed.is_err();
        pushed
    })
    .await;
    progress.finish();
    let ended = finish(rows, is_broken, ended);
    report(&batch, &done, ended, draft)
}

/// A token for "told to stop". Told twice, the program ends at once, whatever it waits for.
fn on_stop(mut stop: Stop, draft: Option<PathBuf>) -> CancellationToken {
    let stopped = CancellationToken::new();
    let told = stopped.clone();
    tokio::spawn(async move {
        stop.asked().await;
        told.cancel();
        stop.asked_again().await;
        let kept = draft.filter(|draft| Path::exists(draft));
        match kept {
            Some(kept) => note(format_args!(
                "told twice to stop; the results so far are in {}",
                kept.display()
            )),
            None => note("told twice to stop"),
        }
        std::process::exit(1);
    });
    stopped
}

/// Ends the rows. The results so far are printed, whatever ended the batch, if the output can be written.
fn finish(rows: Rows, is_broken: bool, ended: anyhow::Result<()>) -> anyhow::Result<()> {
    if is_broken || ended.is_err() && rows.is_empty() {
        return ended;
    }
    let finished = rows.finish().map(drop);
    ended.and(finished)
}

/// Says how the batch ended, and publishes its results.
fn report(
    batch: &Batch,
    done: &Done,
    ended: anyhow::Result<()>,
    draft: Option<Draft>,
) -> anyhow::Result<ExitCode> {
    if let Err(error) = ended {
        if done.tally.total() > 0 {
            note(format_args!("so far: {done}"));
        }
        done.reasons.lines(batch).iter().for_each(note);
        draft.and_then(Draft::keep).iter().for_each(note);
        let next = next_step(&error);
        let id = &batch.batch_id;
        return Err(error.context(format!("batch {id} did not go through{next}")));
    }
    note(done);
    done.reasons.lines(batch).iter().for_each(note);
    draft.map_or(Ok(()), Draft::publish)?;
    Ok(ExitCode::from(if done.wants_a_look() { SOMETHING_LEFT } else { 0 }))
}

/// What helps after a batch that did not go through. A refusal says so itself.
fn next_step(error: &anyhow::Error) -> &'static str {
    let refusals = [Code::NotFound, Code::FailedPrecondition, Code::InvalidArgument];
    match error.downcast_ref::<RpcError>() {
        Some(RpcError(status)) if refusals.contains(&status.code()) => "",
        _ => ": run the same command again, which tells all outcomes and goes on with the rest",
    }
}
