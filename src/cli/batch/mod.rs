//! `holdfast redeem-batch`: redeems the cards of a file.
//!
//! The file is read more than once: to name its bad rows and count the good ones, to compare it with what the
//! server has of the batch, and to send it. When the connection is lost, the same batch is opened again and everything is sent again:
//! the server answers what it knows, and redeems only the rest. Running the command again does the
//! same.
//!
//! Results have a row for every row of the file, in its order (`sheet`). Results in a file replace it when the batch has gone through, and not before (`output::file`). When
//! the output cannot be written, is closed, or the command is interrupted, the call is broken off: the
//! server begins nothing more.
//!
//! Exit code: 0 when every row has an outcome, credited as expected, redeemed already for another request,
//! or refused because of the card; 3
//! when something is left to do (see [`Tally`] and the bad rows); 1 when the batch did not go through.

mod advice;
mod compare;
mod feed;
mod index;
mod item_key;
mod outcome;
mod progress;
mod reasons;
mod rest;
mod results;
mod session;
mod settling;
mod sheet;
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
use serde_json::Value;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use tonic::Code;

#[cfg(feature = "fuzzing")]
pub(super) use self::feed::item;
use self::{
    compare::{Counts, NotCompared},
    rest::Rest,
    session::Ready,
    sheet::Sheet,
};
pub(super) use self::{
    feed::CardFile,
    item_key::ItemKeyArgs,
    outcome::Outcome,
    progress::Progress,
    session::{Done, prepare, redeem},
    tally::Tally,
};
use super::shared::{
    client::{RpcError, Server, ServerArgs, wire},
    csv_files::FileArgs,
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
    /// The file, or - for standard input: CSV with a header, columns code (required), item_id, amount_minor,
    /// currency_code, pool_id (rows of other pools are skipped). An item without item_id is named after its card.
    file: PathBuf,
    #[command(flatten)]
    reading: FileArgs,
    #[command(flatten)]
    item_key: ItemKeyArgs,
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
    /// The priority of every item, 0 to 9: of those who wait for an account, a higher one is served first.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(i32).range(0..=9))]
    priority: i32,
    /// Begin no item before this time (RFC 3339, such as 2026-12-01T02:00:00Z), by the database's clock: at most 24
    /// hours from now.
    #[arg(long, value_parser = parse::time)]
    not_before: Option<OffsetDateTime>,
    /// Only accounts of this plan, or of none.
    #[arg(long, value_parser = parse::plan)]
    plan: Option<PlanId>,
    /// How long to go on trying when the connection to the server is lost.
    #[arg(long, default_value = "5m", value_parser = parse_duration)]
    reconnect_for: Duration,
    /// How long to wait at the end for the outcomes of items that are in doubt; not at all when not given. Those that a
    /// person must decide are not waited for.
    #[arg(long, default_value = "0s", value_parser = parse_duration)]
    wait: Duration,
    /// Read and check the file, compare it with the batch on the server, and say what would be done: send nothing.
    /// --output is left as it is.
    #[arg(long)]
    dry_run: bool,
    /// Write the results to this file (as CSV, unless --format says otherwise). It is replaced when the
    /// batch has gone through; of one that did not, the results are kept beside it.
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
    /// Of each item: a higher one is served first.
    pub(super) priority: i32,
    /// No item is begun before this time.
    pub(super) not_before: Option<OffsetDateTime>,
    /// How long a lost connection is tried again.
    pub(super) reconnect_for: Duration,
    /// How long items in doubt are waited for at the end.
    pub(super) wait: Duration,
    /// The key of the names that the file does not give.
    pub(super) item_key: ItemKeyArgs,
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
        Some(path) => {
            let key = args.item_key.file().ok();
            let inputs = [&*args.file].into_iter().chain(key.as_deref());
            let inputs: Vec<&Path> = inputs.chain(args.server.files()).collect();
            Some(Target::check(path, &inputs)?)
        }
        None => check_stdout(&args.file).map(|()| None)?,
    };
    let cards = CardFile::open(&args.file, args.reading.options(&args.pool))?;
    let server = args.server.connect().await?;
    let batch = Batch {
        pool_id: args.pool,
        batch_id: args.batch_id,
        holder: args.holder,
        plan: args.plan,
        max_in_flight: args.max_in_flight,
        item_timeout: args.item_timeout,
        priority: args.priority,
        not_before: args.not_before,
        reconnect_for: args.reconnect_for,
        wait: args.wait,
        item_key: args.item_key,
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
    if args.dry_run {
        return dry_run(&server, &batch, &ready, args.format).await;
    }
    match compare::recorded(&server, &batch, &ready.index).await {
        Ok(recorded) => tokio::task::block_in_place(|| {
            compare::told(&ready, &batch, &recorded, |line| progress.note(line))
        })?,
        // What is compared is for people: the batch goes through without it.
        Err(why) => progress.note(why),
    }
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
    let mut sheet = Sheet::new(std::sync::Arc::clone(&ready.index))?;
    let (done, ended) = redeem(&server, &ready, &progress, stopped, |outcome| {
        let mut push = |row: &[Value]| match shared {
            true => progress.aside(|| rows.push(row)),
            false => rows.push(row),
        };
        let pushed = sheet.put(outcome).and_then(|()| sheet.write(&mut push));
        is_broken = pushed.is_err();
        pushed
    })
    .await;
    progress.finish();
    let is_closed = ended.as_ref().is_err_and(|error| error.is::<Closed>());
    let is_refused = ended.is_err() && done.tally.total() == 0 && !interrupted.is_cancelled();
    if is_broken || is_closed || is_refused {
        return report(&batch, &done, None, ended, draft);
    }
    let rest = match ended {
        Ok(()) => Rest::default(),
        Err(_) => Rest::ask(&server, &batch, &ready, &mut sheet).await,
    };
    let written = rest.write(&ready, &batch, sheet, &mut rows);
    let (rest, ended) = match written.and_then(|rest| rows.finish().map(|_| rest)) {
        Ok(rest) => (Some(rest), ended.and_then(|()| all_told(rest.left))),
        Err(error) => (None, ended.and(Err(error))),
    };
    report(&batch, &done, rest, ended, draft)
}

/// Says what a run would do.
async fn dry_run(
    server: &Server,
    batch: &Batch,
    ready: &Ready,
    format: FormatArgs,
) -> anyhow::Result<ExitCode> {
    let (recorded, not_compared) = match compare::recorded(server, batch, &ready.index).await {
        Ok(recorded) => (recorded, None),
        Err(NotCompared::Failed(error)) => {
            return Err(error.context("the file cannot be compared with the batch"));
        }
        Err(why) => (compare::Recorded::default(), Some(why)),
    };
    let is_compared = not_compared.is_none();
    let mut rows = Rows::new(format.for_stdout(), compare::COLUMNS, Sink::stdout());
    let counts = tokio::task::block_in_place(|| {
        compare::compare(ready, batch, &recorded, |compared, _| {
            rows.push(&compared.row(is_compared))
        })
    })?;
    rows.finish()?;
    match not_compared {
        None => note(compare::summary(batch, &counts)),
        Some(why) => note(why),
    }
    compare::hints(&counts).iter().for_each(note);
    let Counts { new, again, differs, bad, .. } = counts;
    let redeemed = new + again;
    let what = if is_compared { "redeemed" } else { "sent" };
    note(format_args!(
        "dry run: {redeemed} items would be {what}; {bad} bad rows. Nothing was sent, and the provider was not asked \
         what cards are worth"
    ));
    Ok(ExitCode::from(if bad + differs > 0 { SOMETHING_LEFT } else { 0 }))
}

/// Whether every row has an outcome, of a batch that has gone through.
fn all_told(left: u64) -> anyhow::Result<()> {
    anyhow::ensure!(left == 0, "{left} rows have no outcome: the file was changed meanwhile");
    Ok(())
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

/// Says how the batch ended, and publishes its results.
fn report(
    batch: &Batch,
    done: &Done,
    rest: Option<Rest>,
    ended: anyhow::Result<()>,
    draft: Option<Draft>,
) -> anyhow::Result<ExitCode> {
    if let Err(error) = ended {
        if done.tally.total() > 0 || rest.is_some() {
            note(format_args!("so far: {done}"));
        }
        rest.iter().for_each(note);
        done.reasons.lines(batch).iter().for_each(note);
        let is_whole = rest.is_some();
        draft.and_then(|draft| draft.keep(is_whole)).iter().for_each(note);
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
