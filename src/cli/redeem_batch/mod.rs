//! `holdfast redeem-batch`: redeems the cards of a file.
//!
//! The file is read twice: once to name its bad rows and count the good ones, and once to send
//! them. When the connection is lost, the same batch is opened again and everything is sent again:
//! the server answers what it knows, and redeems only the rest. Running the command again does the
//! same.
//!
//! Exit code: 0 when every row has an outcome, redeemed or refused by the provider; 3 when some row
//! was bad, some item was rejected (it was not begun), or some outcome is not known yet; 1 when the
//! batch did not go through.

mod feed;
mod progress;
mod results;
mod session;
#[cfg(test)]
mod tests;

use std::{io::IsTerminal as _, path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;

pub(super) use self::{
    progress::Progress,
    results::{Outcome, Tally},
    session::{Done, redeem},
};
use super::{
    client::ServerArgs,
    output::{FormatArgs, Rows, Sink, note},
    parse,
    pool::wire,
};
use crate::{
    config::parse_duration,
    domain::id::{BatchId, Holder, PlanId, PoolId},
    rpc::pb,
};

/// The exit code of a batch that went through and of which something wants a look.
const WANTS_A_LOOK: u8 = 3;

#[derive(Args, Debug)]
#[command(after_help = "Exit code: 0 when every row has an outcome (redeemed, or refused by the \
    provider); 3 when some rows are bad, were rejected, or have no known outcome yet; 1 for errors. \
    Running the same command again goes on with what is not done yet.")]
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
    /// Write the results to this file (as CSV, unless --format says otherwise).
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
    /// The file of its cards.
    pub(super) file: PathBuf,
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
pub(super) async fn run(args: RedeemBatchArgs) -> anyhow::Result<ExitCode> {
    let server = args.server.connect().await?;
    let (format, sink) = match &args.output {
        Some(path) => (args.format.for_file(), Sink::file(path)?),
        None => (args.format.for_stdout(), Sink::stdout()),
    };
    let batch = Batch {
        file: args.file,
        pool_id: args.pool,
        batch_id: args.batch_id,
        holder: args.holder,
        plan: args.plan,
        max_in_flight: args.max_in_flight,
        item_timeout: args.item_timeout,
    };
    let progress = Progress::new(batch.pool_id.to_string());
    let mut rows = Rows::new(format, results::COLUMNS, sink);
    // Rows and the bar share the terminal: each must stay on lines of its own.
    let shared = args.output.is_none() && std::io::stdout().is_terminal();
    let done = redeem(&server, &batch, &progress, |outcome| {
        let row = outcome.row();
        if shared { progress.aside(|| rows.push(&row)) } else { rows.push(&row) }
    })
    .await;
    progress.finish();
    // What is known is printed, whatever ended the batch.
    if done.is_ok() || !rows.is_empty() {
        rows.finish()?;
    }
    let done = done?;
    note(&done);
    if done.tally.in_doubt > 0 {
        note(format_args!(
            "not known yet: see `holdfast redemption list --pool {} --batch-id {} --state \
             submitted,in-doubt,needs-review`",
            batch.pool_id, batch.batch_id
        ));
    }
    if done.tally.rejected > 0 {
        note("rejected items were not begun: the same command tries them again");
    }
    Ok(ExitCode::from(if done.wants_a_look() { WANTS_A_LOOK } else { 0 }))
}
