//! `holdfast plan`: create and list plans.

use clap::{Args, Subcommand};

use super::{
    client::{PAGE_SIZE, RpcError, Server, ServerArgs, every_page, required, unary},
    output::{FormatArgs, Rows, Sink, record},
    parse, view,
};
use crate::{
    domain::id::{PlanId, PoolId},
    rpc::pb,
};

#[derive(Debug, Subcommand)]
pub(super) enum PlanCommand {
    /// Create a plan in a pool.
    Create(CreateArgs),
    /// List the plans of a pool.
    List(ListArgs),
}

#[derive(Args, Debug)]
pub(super) struct CreateArgs {
    /// The plan's name: 1 to 128 letters, digits, '.', '_' and '-'.
    #[arg(value_parser = parse::plan)]
    plan: PlanId,
    /// The pool that it is for.
    #[arg(long, value_parser = parse::pool)]
    pool: PoolId,
    /// The balance at which an account is complete, in minor units of the pool's currency.
    #[arg(long, value_parser = parse::amount)]
    target: i64,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args, Debug)]
pub(super) struct ListArgs {
    /// The pool.
    #[arg(long, value_parser = parse::pool)]
    pool: PoolId,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    server: ServerArgs,
}

/// Runs one of the commands.
pub(super) async fn run(command: PlanCommand) -> anyhow::Result<()> {
    match command {
        PlanCommand::Create(args) => create(args).await,
        PlanCommand::List(args) => list(args).await,
    }
}

async fn create(args: CreateArgs) -> anyhow::Result<()> {
    let server = args.server.connect().await?;
    let plan = pb::Plan {
        pool_id: args.pool.to_string(),
        plan_id: args.plan.to_string(),
        target: Some(pb::Money {
            amount_minor: args.target,
            currency_code: pool_currency(&server, &args.pool).await?,
        }),
        ..Default::default()
    };
    let request = unary(pb::CreatePlanRequest { plan: Some(plan) });
    let reply = server.pools().create_plan(request).await.map_err(RpcError)?;
    let row = view::plan(&required(reply.into_inner().plan, "plan")?);
    record(args.format.for_stdout(), view::PLAN, &row, Sink::stdout())?;
    Ok(())
}

async fn list(args: ListArgs) -> anyhow::Result<()> {
    let mut pools = args.server.connect().await?.pools();
    let mut rows = Rows::new(args.format.for_stdout(), view::PLAN, Sink::stdout());
    every_page(
        async |page_token| {
            let pool_id = args.pool.to_string();
            let request = pb::ListPlansRequest { pool_id, page_size: PAGE_SIZE, page_token };
            let page = pools.list_plans(unary(request)).await?.into_inner();
            Ok((page.plans, page.next_page_token))
        },
        |plan| rows.push(&view::plan(&plan)),
    )
    .await?;
    rows.finish()?;
    Ok(())
}

/// The currency of a pool: amounts are typed without one, since a pool has only one.
pub(super) async fn pool_currency(server: &Server, pool: &PoolId) -> anyhow::Result<String> {
    let request = unary(pb::GetPoolRequest { pool_id: pool.to_string() });
    let reply = server.pools().get_pool(request).await.map_err(RpcError)?;
    Ok(required(reply.into_inner().pool, "pool")?.currency_code)
}
