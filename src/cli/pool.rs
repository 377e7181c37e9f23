//! `holdfast pool`: create, list, pause and resume pools.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::{
    client::{PAGE_SIZE, RpcError, Server, ServerArgs, every_page, required, unary},
    output::{FormatArgs, Rows, Sink, record},
    parse, view,
};
use crate::{
    config::parse_duration,
    domain::{id::PoolId, money::Currency},
    rpc::pb,
};

#[derive(Debug, Subcommand)]
pub(super) enum PoolCommand {
    /// Create a pool.
    Create(CreateArgs),
    /// List all pools.
    List(ListArgs),
    /// Begin nothing new in a pool; what was begun is finished.
    Pause(ChangeArgs),
    /// End a pause.
    Resume(ChangeArgs),
}

#[derive(Args, Debug)]
pub(super) struct CreateArgs {
    /// The pool's name: 1 to 128 letters, digits, '.', '_' and '-'.
    #[arg(value_parser = parse::pool)]
    pool: PoolId,
    /// The pool's one currency (ISO 4217), such as EUR. Never changes.
    #[arg(long, value_parser = parse::currency)]
    currency: Currency,
    /// The lease that an acquisition gets when it asks for none: 1s to 24h. 60s when not given.
    #[arg(long, value_parser = parse_duration)]
    default_lease: Option<Duration>,
    /// The shortest lease that can be asked for: 1s to 24h. 1s when not given.
    #[arg(long, value_parser = parse_duration)]
    min_lease: Option<Duration>,
    /// The longest lease that can be asked for: 1s to 24h. 10m when not given.
    #[arg(long, value_parser = parse_duration)]
    max_lease: Option<Duration>,
    /// What becomes of a redemption credited with another amount than expected.
    #[arg(long, value_enum, default_value_t = AmountMismatch::Accept)]
    amount_mismatch: AmountMismatch,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum AmountMismatch {
    /// It succeeds with the amount that was credited, and the difference is marked.
    Accept,
    /// It waits for a person.
    NeedsReview,
}

#[derive(Args, Debug)]
pub(super) struct ListArgs {
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args, Debug)]
pub(super) struct ChangeArgs {
    /// The pool.
    #[arg(value_parser = parse::pool)]
    pool: PoolId,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    server: ServerArgs,
}

/// Runs one of the commands.
pub(super) async fn run(command: PoolCommand) -> anyhow::Result<()> {
    match command {
        PoolCommand::Create(args) => create(args).await,
        PoolCommand::List(args) => list(args).await,
        PoolCommand::Pause(args) => set_paused(args, true).await,
        PoolCommand::Resume(args) => set_paused(args, false).await,
    }
}

async fn create(args: CreateArgs) -> anyhow::Result<()> {
    let policy = match args.amount_mismatch {
        AmountMismatch::Accept => pb::AmountMismatchPolicy::Accept,
        AmountMismatch::NeedsReview => pb::AmountMismatchPolicy::NeedsReview,
    };
    let pool = pb::Pool {
        pool_id: args.pool.to_string(),
        currency_code: args.currency.to_string(),
        default_lease_duration: wire(args.default_lease)?,
        min_lease_duration: wire(args.min_lease)?,
        max_lease_duration: wire(args.max_lease)?,
        amount_mismatch_policy: policy.into(),
        ..Default::default()
    };
    let request = unary(pb::CreatePoolRequest { pool: Some(pool) });
    let reply = args.server.connect().await?.pools().create_pool(request).await;
    print(args.format, reply.map_err(RpcError)?.into_inner().pool)
}

/// The names of all pools.
pub(super) async fn names(server: &Server) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    each(server, |pool| {
        names.push(pool.pool_id);
        Ok(())
    })
    .await?;
    Ok(names)
}

async fn each(
    server: &Server,
    then: impl FnMut(pb::Pool) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut pools = server.pools();
    every_page(
        async |page_token| {
            let request = pb::ListPoolsRequest { page_size: PAGE_SIZE, page_token };
            let page = pools.list_pools(unary(request)).await?.into_inner();
            Ok((page.pools, page.next_page_token))
        },
        then,
    )
    .await
}

async fn list(args: ListArgs) -> anyhow::Result<()> {
    let server = args.server.connect().await?;
    let mut rows = Rows::new(args.format.for_stdout(), view::POOL, Sink::stdout());
    each(&server, |pool| rows.push(&view::pool(&pool))).await?;
    rows.finish()?;
    Ok(())
}

async fn set_paused(args: ChangeArgs, paused: bool) -> anyhow::Result<()> {
    let pool =
        pb::Pool { pool_id: args.pool.to_string(), paused: Some(paused), ..Default::default() };
    let update_mask = Some(prost_types::FieldMask { paths: vec!["paused".to_owned()] });
    let request = unary(pb::UpdatePoolRequest { pool: Some(pool), update_mask });
    let reply = args.server.connect().await?.pools().update_pool(request).await;
    print(args.format, reply.map_err(RpcError)?.into_inner().pool)
}

fn print(format: FormatArgs, pool: Option<pb::Pool>) -> anyhow::Result<()> {
    let row = view::pool(&required(pool, "pool")?);
    record(format.for_stdout(), view::POOL, &row, Sink::stdout())?;
    Ok(())
}

/// A duration as the contract has it.
pub(super) fn wire(span: Option<Duration>) -> anyhow::Result<Option<prost_types::Duration>> {
    Ok(span.map(prost_types::Duration::try_from).transpose()?)
}
