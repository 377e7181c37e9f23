//! `holdfast plan`: create, change, show, list and delete plans.

mod terms;

use clap::{ArgGroup, Args, Subcommand};

use self::terms::{TERMS, TermsArgs};
use super::shared::{
    client::{PAGE_SIZE, RpcError, ServerArgs, required, unary},
    list::{ListOptions, print_list},
    output::{Format, FormatArgs, Sink, after_change, note, record, while_read},
    parse,
    pools::pool_currency,
    view,
};
use crate::{
    domain::id::{PlanId, PoolId},
    rpc::pb,
};

#[derive(Debug, Subcommand)]
pub(super) enum PlanCommand {
    /// Create a plan in a pool.
    Create(CreateArgs),
    /// Change what a plan wants. Leases that are out and redemptions that were begun go on as they
    /// are.
    Update(UpdateArgs),
    /// Delete a plan that no account is bound to.
    Delete(NameArgs),
    /// Show a plan.
    Show(ShowArgs),
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
    terms: TermsArgs,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args, Debug)]
#[command(group = ArgGroup::new("change").required(true).multiple(true)
    .args(["target", "no_days", "any_amount"]).args(TERMS))]
pub(super) struct UpdateArgs {
    /// The plan.
    #[arg(value_parser = parse::plan)]
    plan: PlanId,
    /// Its pool.
    #[arg(long, value_parser = parse::pool)]
    pool: PoolId,
    /// The balance at which an account is complete, in minor units of the pool's currency.
    #[arg(long, value_parser = parse::amount)]
    target: Option<i64>,
    #[command(flatten)]
    terms: TermsArgs,
    /// Take its days away: all is one day, whose limit is the target. (--day-tolerance 0,
    /// --day-interval 24h and --redemption-interval 0s give the others their defaults again.)
    #[arg(long, conflicts_with = "day_amounts")]
    no_days: bool,
    /// Take cards of any amount again.
    #[arg(long, conflicts_with_all = ["amounts", "multiples_of", "fixed_amounts"])]
    any_amount: bool,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args, Debug)]
pub(super) struct NameArgs {
    /// The plan.
    #[arg(value_parser = parse::plan)]
    plan: PlanId,
    /// Its pool.
    #[arg(long, value_parser = parse::pool)]
    pool: PoolId,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args, Debug)]
pub(super) struct ShowArgs {
    #[command(flatten)]
    name: NameArgs,
    #[command(flatten)]
    format: FormatArgs,
}

#[derive(Args, Debug)]
pub(super) struct ListArgs {
    /// The pool.
    #[arg(long, value_parser = parse::pool)]
    pool: PoolId,
    #[command(flatten)]
    list: ListOptions,
    #[command(flatten)]
    server: ServerArgs,
}

/// Runs one of the commands.
pub(super) async fn run(command: PlanCommand) -> anyhow::Result<()> {
    match command {
        PlanCommand::Create(args) => create(args).await,
        PlanCommand::Update(args) => update(args).await,
        PlanCommand::Delete(args) => delete(args).await,
        PlanCommand::Show(args) => while_read(show(args)).await,
        PlanCommand::List(args) => while_read(list(args)).await,
    }
}

async fn create(args: CreateArgs) -> anyhow::Result<()> {
    let server = args.server.connect().await?;
    let currency_code = pool_currency(&server, &args.pool).await?;
    let mut plan = named(&args.pool, &args.plan);
    args.terms.set(&mut plan, &currency_code)?;
    plan.target = Some(pb::Money { amount_minor: args.target, currency_code });
    let request = unary(pb::CreatePlanRequest { plan: Some(plan) });
    let reply = server.pools().create_plan(request).await.map_err(RpcError)?;
    after_change(print(args.format, reply.into_inner().plan))
}

async fn update(args: UpdateArgs) -> anyhow::Result<()> {
    let server = args.server.connect().await?;
    let currency_code = pool_currency(&server, &args.pool).await?;
    let mut plan = named(&args.pool, &args.plan);
    let mut fields = args.terms.set(&mut plan, &currency_code)?;
    if let Some(amount_minor) = args.target {
        plan.target = Some(pb::Money { amount_minor, currency_code });
        fields.push("target");
    }
    // A field that is named and not set is cleared.
    fields.extend(args.no_days.then_some("day_amounts"));
    fields.extend(args.any_amount.then_some("denominations"));
    let paths = fields.into_iter().map(str::to_owned).collect();
    let update_mask = Some(prost_types::FieldMask { paths });
    let request = unary(pb::UpdatePlanRequest { plan: Some(plan), update_mask });
    let reply = server.pools().update_plan(request).await.map_err(RpcError)?;
    after_change(print(args.format, reply.into_inner().plan))
}

async fn delete(args: NameArgs) -> anyhow::Result<()> {
    let (pool_id, plan_id) = (args.pool.to_string(), args.plan.to_string());
    let request = unary(pb::DeletePlanRequest { pool_id, plan_id });
    args.server.connect().await?.pools().delete_plan(request).await.map_err(RpcError)?;
    note(format_args!("plan {} of pool {} is deleted", args.plan, args.pool));
    Ok(())
}

async fn show(args: ShowArgs) -> anyhow::Result<()> {
    let (pool_id, plan_id) = (args.name.pool.to_string(), args.name.plan.to_string());
    let request = unary(pb::GetPlanRequest { pool_id, plan_id });
    let reply = args.name.server.connect().await?.pools().get_plan(request).await;
    print(args.format, reply.map_err(RpcError)?.into_inner().plan)
}

async fn list(args: ListArgs) -> anyhow::Result<()> {
    let rows = args.list.rows(view::PLAN, view::PLAN_AT_A_GLANCE, Sink::stdout())?;
    let mut pools = args.server.connect().await?.pools();
    print_list(
        rows,
        async |page_token| {
            let pool_id = args.pool.to_string();
            let request = pb::ListPlansRequest { pool_id, page_size: PAGE_SIZE, page_token };
            let page = pools.list_plans(unary(request)).await?.into_inner();
            Ok((page.plans, page.next_page_token))
        },
        view::plan,
    )
    .await
}

fn named(pool: &PoolId, plan: &PlanId) -> pb::Plan {
    pb::Plan { pool_id: pool.to_string(), plan_id: plan.to_string(), ..Default::default() }
}

fn print(format: FormatArgs, plan: Option<pb::Plan>) -> anyhow::Result<()> {
    let row = view::plan(&required(plan, "plan")?);
    let format = format.for_stdout();
    let columns = if format == Format::Table { view::PLAN_FOR_PEOPLE } else { view::PLAN };
    record(format, columns, &view::choose(columns, view::PLAN, &row), Sink::stdout())?;
    Ok(())
}
