//! `holdfast account`: import, list, show and explain accounts, and what a person may change of one.

mod change;
mod correct;
mod explain;
pub(super) mod import;
mod update;

use clap::{Args, Subcommand, ValueEnum};
use time::OffsetDateTime;

use self::change::{Change, ChangeArgs};
pub(super) use self::update::read as credentials_of;
use super::shared::{
    client::{PAGE_SIZE, RpcError, ServerArgs, required, unary},
    list::{ListOptions, print_list},
    output::{Format, FormatArgs, Rows, Sink, object, record, while_read},
    parse, view,
};
use crate::{
    domain::id::{AccountId, PlanId, PoolId, RedemptionId},
    rpc::pb,
};

#[derive(Debug, Subcommand)]
pub(super) enum AccountCommand {
    /// Create the accounts of a file.
    Import(import::ImportArgs),
    /// List the accounts of a pool.
    List(ListArgs),
    /// Show an account and what happened to it last.
    Show(ShowArgs),
    /// Tell which accounts would be picked for a card now, and why each other is passed over.
    Explain(explain::ExplainArgs),
    /// Begin nothing new on an account, under a lease that is out neither.
    Pause(ChangeArgs),
    /// Give out no new lease on an account; one that is out redeems until it ends.
    Drain(ChangeArgs),
    /// End an account's pause and drain.
    Resume(ChangeArgs),
    /// End the hold of an account: it can be used again at once. One whose login was refused has to be
    /// activated.
    LiftHold(ChangeArgs),
    /// Say that the provider lets an account in (again). Lifts its hold too.
    Activate(ChangeArgs),
    /// Change an account's credentials.
    Update(update::UpdateArgs),
    /// Give an account the balance that it has at the provider, by the word of somebody who looked at
    /// the provider's own records.
    CorrectBalance(correct::CorrectArgs),
}

#[derive(Args, Debug)]
pub(super) struct ListArgs {
    /// The pool.
    #[arg(long, value_parser = parse::pool)]
    pool: PoolId,
    /// Only accounts of this status.
    #[arg(long, value_enum)]
    status: Option<Status>,
    /// Only accounts of this login status.
    #[arg(long, value_enum)]
    login_status: Option<Login>,
    /// Only accounts of this plan.
    #[arg(long, value_parser = parse::plan)]
    plan: Option<PlanId>,
    /// Only accounts under a lease of this holder.
    #[arg(long)]
    holder: Option<String>,
    /// Only accounts that changed last from this time on, such as 2026-11-30T12:00:00Z.
    #[arg(long, value_parser = parse::time)]
    since: Option<OffsetDateTime>,
    /// Only accounts that changed last before this time.
    #[arg(long, value_parser = parse::time)]
    until: Option<OffsetDateTime>,
    #[command(flatten)]
    list: ListOptions,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args, Debug)]
pub(super) struct ShowArgs {
    /// The account.
    #[arg(value_parser = parse::account)]
    account: AccountId,
    /// Its pool.
    #[arg(long, value_parser = parse::pool)]
    pool: PoolId,
    /// How many of its events to show, the newest first.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(i32).range(1..=1000))]
    events: i32,
    /// Only events of this reason, such as redeemed.
    #[arg(long)]
    reason: Option<String>,
    /// Only events of this redemption.
    #[arg(long, value_parser = parse::redemption)]
    redemption: Option<RedemptionId>,
    /// Only events of this actor, such as a holder.
    #[arg(long)]
    actor: Option<String>,
    /// Only events from this time on, such as 2026-11-30T12:00:00Z.
    #[arg(long, value_parser = parse::time)]
    since: Option<OffsetDateTime>,
    /// Only events before this time.
    #[arg(long, value_parser = parse::time)]
    until: Option<OffsetDateTime>,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Status {
    Waiting,
    Processing,
    Locking,
    Completed,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Login {
    Active,
    Inactive,
    Invalid,
}

impl From<Status> for pb::AccountStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::Waiting => Self::Waiting,
            Status::Processing => Self::Processing,
            Status::Locking => Self::Locking,
            Status::Completed => Self::Completed,
        }
    }
}

impl From<Login> for pb::LoginStatus {
    fn from(login: Login) -> Self {
        match login {
            Login::Active => Self::Active,
            Login::Inactive => Self::Inactive,
            Login::Invalid => Self::Invalid,
        }
    }
}

/// Runs one of the commands.
pub(super) async fn run(command: AccountCommand) -> anyhow::Result<()> {
    match command {
        AccountCommand::Import(args) => import::run(args).await,
        AccountCommand::List(args) => while_read(list(args)).await,
        AccountCommand::Show(args) => while_read(show(args)).await,
        AccountCommand::Explain(args) => while_read(explain::run(args)).await,
        AccountCommand::Pause(args) => change::run(args, Change::Pause).await,
        AccountCommand::Drain(args) => change::run(args, Change::Drain).await,
        AccountCommand::Resume(args) => change::run(args, Change::Resume).await,
        AccountCommand::LiftHold(args) => change::run(args, Change::LiftHold).await,
        AccountCommand::Activate(args) => change::run(args, Change::Activate).await,
        AccountCommand::Update(args) => update::run(args).await,
        AccountCommand::CorrectBalance(args) => correct::run(args).await,
    }
}

async fn list(args: ListArgs) -> anyhow::Result<()> {
    let rows = args.list.rows(view::ACCOUNT, view::ACCOUNT, Sink::stdout())?;
    let mut accounts = args.server.connect().await?.accounts();
    let status = args.status.map_or(pb::AccountStatus::Unspecified, Into::into);
    let login_status = args.login_status.map_or(pb::LoginStatus::Unspecified, Into::into);
    let filter = pb::ListAccountsRequest {
        pool_id: args.pool.to_string(),
        page_size: PAGE_SIZE,
        page_token: String::new(),
        status: status.into(),
        login_status: login_status.into(),
        plan_id: args.plan.map(|plan| plan.to_string()).unwrap_or_default(),
        holder: args.holder.unwrap_or_default(),
        update_time_from: args.since.map(parse::timestamp),
        update_time_to: args.until.map(parse::timestamp),
    };
    print_list(
        rows,
        async |page_token| {
            let request = pb::ListAccountsRequest { page_token, ..filter.clone() };
            let page = accounts.list_accounts(unary(request)).await?.into_inner();
            Ok((page.accounts, page.next_page_token))
        },
        view::account,
    )
    .await
}

async fn show(args: ShowArgs) -> anyhow::Result<()> {
    let mut accounts = args.server.connect().await?.accounts();
    let (pool_id, account_id) = (args.pool.to_string(), args.account.to_string());
    let request =
        pb::GetAccountRequest { pool_id: pool_id.clone(), account_id: account_id.clone() };
    let reply = accounts.get_account(unary(request)).await.map_err(RpcError)?;
    let account = required(reply.into_inner().account, "account")?;

    let request = pb::ListAccountEventsRequest {
        pool_id,
        account_id,
        page_size: args.events,
        page_token: String::new(),
        event_time_from: args.since.map(parse::timestamp),
        event_time_to: args.until.map(parse::timestamp),
        reason: args.reason.unwrap_or_default(),
        redemption_id: args.redemption.map(|id| id.to_string()).unwrap_or_default(),
        actor: args.actor.unwrap_or_default(),
    };
    let reply = accounts.list_account_events(unary(request)).await.map_err(RpcError)?;
    print(args.format.for_stdout(), &account, &reply.into_inner().account_events)
}

/// The account, then its events: two tables, two parts of CSV with a blank line between them, or
/// one object.
fn print(format: Format, account: &pb::Account, events: &[pb::AccountEvent]) -> anyhow::Result<()> {
    let mut sink = Sink::stdout();
    let row = view::account(account);
    if format == Format::Json {
        let events: Vec<String> =
            events.iter().map(|event| object(view::EVENT, &view::event(event))).collect();
        let account = object(view::ACCOUNT, &row);
        return sink
            .line(format_args!("{{\"account\":{account},\"events\":[{}]}}", events.join(",")));
    }
    sink = record(format, view::ACCOUNT, &row, sink)?;
    sink.line("")?;
    let mut rows = Rows::new(format, view::EVENT, sink);
    events.iter().try_for_each(|event| rows.push(&view::event(event)))?;
    rows.finish()?;
    Ok(())
}
