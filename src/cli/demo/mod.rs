//! `holdfast demo`: the whole thing on one machine, with processes of its own: a private Postgres, two
//! providers that misbehave, the server, and batches from files through the real API, over TLS and with a token. Ends
//! with a report that lays the providers' ledgers beside our records.

mod certificates;
mod compare;
mod files;
mod ledger;
mod report;
mod stage;
mod world;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::Args;
use futures_util::future::try_join_all;
use indicatif::MultiProgress;

use self::{
    files::Files,
    report::{PoolRun, Report},
    stage::Stage,
    world::{POOLS, PoolPlan},
};
use super::{
    account::import,
    batch::{Batch, CardFile, ItemKeyArgs, Progress, prepare, redeem},
    shared::{
        client::Server,
        csv_files::{FileArgs, Options},
        output::{Sink, note},
        stop::Stop,
        token::Bearer,
    },
};
use crate::{
    config::parse_duration,
    domain::id::{BatchId, Holder, PoolId},
};

/// The batch's name in both pools.
const BATCH_ID: &str = "demo";
/// Items under way at once in each pool.
const MAX_IN_FLIGHT: i32 = 32;
/// How long an item waits for an account that is free and has room for it.
const ITEM_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a lost connection is tried again: the server is on this machine.
const RECONNECT_FOR: Duration = Duration::from_secs(30);
/// How often it is looked whether redemptions are still open.
const SETTLE_POLL: Duration = Duration::from_millis(250);

#[derive(Args, Debug)]
pub(super) struct DemoArgs {
    /// The accounts, of the pools steam-eu and psn-us (column pool_id). The example's when not
    /// given. The pool gift-us, of a second provider, always has the example's.
    #[arg(long)]
    accounts: Option<PathBuf>,
    /// The cards, of the same pools. The example's when not given.
    #[arg(long)]
    cards: Option<PathBuf>,
    /// What the simulated provider knows of the cards: code, amount_minor, currency_code,
    /// country_code, state (fresh or used). The example's when not given; with cards of your own,
    /// every code is a fresh card worth 1000.
    #[arg(long)]
    provider_cards: Option<PathBuf>,
    /// The folder that holds Postgres's programs (initdb, postgres).
    #[arg(long, env = "HOLDFAST_POSTGRES_BIN")]
    postgres_bin: Option<PathBuf>,
    /// How long to wait, after the batches, for redemptions that are in doubt.
    #[arg(long, default_value = "60s", value_parser = parse_duration)]
    settle_timeout: Duration,
    /// Stay up after the report, until Ctrl-C.
    #[arg(long)]
    stay: bool,
}

/// Runs the demo. It has failed when the provider's ledger and our records differ.
pub(super) async fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
    let folder = tempfile::Builder::new()
        .prefix("holdfast-demo-")
        .tempdir()
        .context("no folder for the demo's files can be made")?;
    let files = Files::choose(&args, folder.path())?;
    // Before anything is started: a file that cannot be read is told at once.
    let options = Options { may_repeat_cards: true, ..Options::default() };
    let cards = CardFile::open(&files.cards, options.clone())?;
    let task_cards = CardFile::open(&files.task_cards, options)?;
    import::open(&files.accounts, &Options::default())?;
    let mut stop = Stop::listen(false)?;
    note("starting Postgres, the providers and the server …");
    let stage = tokio::select! {
        stage = Stage::start(folder.path(), &files, args.postgres_bin.as_deref()) => stage?,
        () = stop.asked() => anyhow::bail!("interrupted"),
    };
    let shown = tokio::select! {
        shown = Box::pin(show(&stage, &files, [&cards, &task_cards], &args)) => shown,
        () = stop.asked() => Err(anyhow::anyhow!("interrupted")),
    };
    if shown.is_ok() && args.stay {
        note(format_args!("up at {} until Ctrl-C", stage.server_url));
        stop.asked().await;
    }
    if shown.is_err() {
        stage.show_logs();
    }
    let stopped = stage.stop().await;
    let agreed = shown?;
    stopped?;
    Ok(if agreed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Plays it and prints the report. Answers whether both sides agree.
async fn show(
    stage: &Stage,
    files: &Files,
    [cards, task_cards]: [&CardFile; 2],
    args: &DemoArgs,
) -> anyhow::Result<bool> {
    let bearer = Bearer::from_file(&stage.token_file)?;
    let server = stage.connect(bearer).await?;
    world::prepare(&server, files::task_profile(&stage.task_url)).await?;
    for pool in POOLS {
        let accounts = if pool.has_tasks() { &files.task_accounts } else { &files.accounts };
        let pool_id = pool.id()?;
        let rows = FileArgs::default().options(&pool_id);
        let done = import::import(&server, accounts, &pool_id, rows).await?;
        note(format_args!("{}: {} accounts imported", pool.pool_id, done.created));
    }
    let before = world::accounts(&server).await?;

    let bars = MultiProgress::new();
    let item_key = ItemKeyArgs::in_file(stage.task_ledger.with_file_name("item.key"));
    let run = |pool: &'static PoolPlan| {
        let cards = if pool.has_tasks() { task_cards } else { cards };
        run_pool(&server, cards, pool, &item_key, &bars)
    };
    let runs = try_join_all(POOLS.iter().map(run)).await?;
    let settled = settle(&server, args.settle_timeout).await?;

    let ours = ledger::ours(&server).await?;
    let mut provider = ledger::provider(&stage.provider_url).await?;
    provider.extend(ledger::tasks(&stage.task_ledger, &ours)?);
    let after = world::accounts(&server).await?;
    let report = Report { runs, before, after, ours, provider, settled };
    let way = [&stage.ca_file, &stage.token_file].map(|file| file.as_path());
    report.print(&stage.server_url, way, args.stay, Sink::stdout())
}

/// Runs one pool's batch.
async fn run_pool(
    server: &Server,
    cards: &CardFile,
    pool: &'static PoolPlan,
    item_key: &ItemKeyArgs,
    bars: &MultiProgress,
) -> anyhow::Result<PoolRun> {
    let batch = Batch {
        priority: 0,
        not_before: None,
        pool_id: pool.id()?,
        batch_id: BatchId::parse(BATCH_ID)?,
        holder: Holder::parse("demo")?,
        plan: None,
        max_in_flight: MAX_IN_FLIGHT,
        item_timeout: ITEM_TIMEOUT,
        reconnect_for: RECONNECT_FOR,
        // The report waits for what is in doubt.
        wait: Duration::ZERO,
        item_key: item_key.clone(),
    };
    let progress = Progress::among(bars, pool.pool_id.to_owned());
    let mut outcomes = report::Outcomes::default();
    let ready = prepare(server, &batch, cards, &progress).await?;
    let (done, ended) = redeem(server, &ready, &progress, std::future::pending(), |outcome| {
        *outcomes.entry(outcome.kind()).or_default() += 1;
        Ok(())
    })
    .await;
    progress.finish();
    ended?;
    Ok(PoolRun { pool_id: pool.pool_id, outcomes, done })
}

/// Waits until no outcome is unknown. Answers how long that took; `None` when time ran out.
async fn settle(server: &Server, timeout: Duration) -> anyhow::Result<Option<Duration>> {
    let begun = std::time::Instant::now();
    loop {
        let mut open = 0_u64;
        for pool in POOLS {
            open += ledger::count_unknown(server, pool).await?;
        }
        if open == 0 {
            return Ok(Some(begun.elapsed()));
        }
        if begun.elapsed() >= timeout {
            note(format_args!("{open} redemptions are still open"));
            return Ok(None);
        }
        tokio::time::sleep(SETTLE_POLL).await;
    }
}

impl PoolPlan {
    /// The pool's name, checked.
    fn id(&self) -> anyhow::Result<PoolId> {
        Ok(PoolId::parse(self.pool_id)?)
    }
}
