//! `holdfast redemption`: list, show and watch redemptions, close what only a person can, take back what was redeemed, and
//! compare with the provider.

pub(super) mod audit;
mod contradiction;
mod find;
mod reverse;
mod watch;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use time::OffsetDateTime;

use self::find::{find, get};
use super::shared::{
    client::{PAGE_SIZE, RpcError, Server, ServerArgs, every_page, required, server_time, unary},
    list::ListOptions,
    output::{FormatArgs, Sink, after_change, record, while_read},
    parse,
    pools::{pool_currency, pool_names},
    stop::Stop,
    view,
};
use crate::{
    domain::id::{AccountId, BatchId, Holder, PoolId, RedemptionId},
    rpc::pb,
};

#[derive(Debug, Subcommand)]
pub(super) enum RedemptionCommand {
    /// List the redemptions of a pool, or of all pools one after another, newest first.
    List(ListArgs),
    /// Show a redemption.
    Show(ShowArgs),
    /// Print the outcomes of a pool's redemptions as they are recorded, until Ctrl-C. Each row has a cursor, after which
    /// the command goes on when it is given with --after.
    Watch(watch::WatchArgs),
    /// Close a redemption that is in doubt or needs review, by the word of somebody who looked at
    /// the provider's own records.
    Resolve(ResolveArgs),
    /// Take back what a redemption that succeeded brought: the provider is asked to reverse it, and the
    /// amount is taken off the account.
    Reverse(reverse::ReverseArgs),
    /// Compare the provider's list, or its ledger in a file, with our records, both ways, and name
    /// every difference.
    Audit(audit::AuditArgs),
}

#[derive(Args, Debug)]
pub(super) struct ListArgs {
    /// The pool. All pools, one after another, when not given.
    #[arg(long, value_parser = parse::pool)]
    pool: Option<PoolId>,
    /// Only redemptions of this state; give it more than once, or with commas, for several.
    #[arg(long, value_enum, value_delimiter = ',')]
    state: Vec<State>,
    /// Only redemptions that have a reversal of this state; give it more than once, or with commas, for several.
    #[arg(long, value_enum, value_delimiter = ',')]
    reversal: Vec<reverse::State>,
    /// Only redemptions of this batch.
    #[arg(long, value_parser = parse::batch)]
    batch_id: Option<BatchId>,
    /// Only redemptions into this account.
    #[arg(long, value_parser = parse::account)]
    account: Option<AccountId>,
    /// Only redemptions of this request.
    #[arg(long, conflicts_with = "batch_id")]
    request_id: Option<String>,
    /// Only redemptions that failed, or need review, for this reason, such as PROVIDER_UNREACHABLE.
    #[arg(long)]
    reason: Option<String>,
    /// Only redemptions that were begun under a lease of this holder.
    #[arg(long)]
    holder: Option<String>,
    /// Only redemptions whose code ends with these four characters.
    #[arg(long)]
    last4: Option<String>,
    /// Only redemptions that were recorded from this time on, such as 2026-11-30T12:00:00Z.
    #[arg(long, value_parser = parse::time)]
    since: Option<OffsetDateTime>,
    /// Only redemptions that were recorded before this time.
    #[arg(long, value_parser = parse::time)]
    until: Option<OffsetDateTime>,
    #[command(flatten)]
    list: ListOptions,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args, Debug)]
pub(super) struct ShowArgs {
    /// The redemption.
    #[arg(value_parser = parse::redemption)]
    redemption: RedemptionId,
    /// Its pool. It is looked for in all pools when not given.
    #[arg(long, value_parser = parse::pool)]
    pool: Option<PoolId>,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args, Debug)]
pub(super) struct ResolveArgs {
    /// The redemption.
    #[arg(value_parser = parse::redemption)]
    redemption: RedemptionId,
    /// Its pool.
    #[arg(long, value_parser = parse::pool)]
    pool: PoolId,
    /// What the provider did.
    #[arg(long, value_enum)]
    outcome: Outcome,
    /// What was credited, in minor units of the pool's currency. For succeeded, and only for it.
    #[arg(long, value_parser = parse::amount, required_if_eq("outcome", "succeeded"))]
    amount_minor: Option<i64>,
    /// The provider's own name for the redemption, if you have it.
    #[arg(long, default_value = "")]
    provider_ref: String,
    /// The code is spent: it cannot be redeemed elsewhere. For failed, and only for it.
    #[arg(long, conflicts_with = "amount_minor")]
    code_spent: bool,
    /// What is recorded of the amount is wrong. Without it an outcome that contradicts the record is
    /// refused: another amount than the provider credited by its answer, or ten times the expected one.
    #[arg(long)]
    recorded_amount_is_wrong: bool,
    /// The number of the resolution that this one takes the place of, as `redemption show` tells it: a
    /// person's word that was wrong is corrected, and stays in the redemption's history.
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..))]
    corrects: Option<i32>,
    /// Do not ask: record an outcome that contradicts what is recorded, and correct what a person said
    /// before.
    #[arg(long)]
    yes: bool,
    /// Why: 1 to 1000 characters, kept for good.
    #[arg(long)]
    reason: String,
    /// What was looked at: the provider's own record, a ticket, the name of a picture. 1 to 1000
    /// characters, kept for good.
    #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    evidence: String,
    /// Who says so: 1 to 256 characters.
    #[arg(long, env = "USER", value_parser = parse::holder)]
    by: Holder,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum State {
    /// Being sent.
    Submitted,
    /// The outcome is being found out.
    InDoubt,
    /// A person decides.
    NeedsReview,
    /// The card was credited.
    Succeeded,
    /// The card was not credited.
    Failed,
}

impl From<State> for pb::RedemptionState {
    fn from(state: State) -> Self {
        match state {
            State::Submitted => Self::Submitted,
            State::InDoubt => Self::InDoubt,
            State::NeedsReview => Self::NeedsReview,
            State::Succeeded => Self::Succeeded,
            State::Failed => Self::Failed,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Outcome {
    /// The card was credited.
    Succeeded,
    /// The card was not credited, and will not be.
    Failed,
}

/// Runs one of the commands.
pub(super) async fn run(command: RedemptionCommand) -> anyhow::Result<ExitCode> {
    match command {
        RedemptionCommand::List(args) => while_read(list(args)).await?,
        RedemptionCommand::Show(args) => while_read(show(args)).await?,
        RedemptionCommand::Watch(args) => {
            let mut stop = Stop::listen(false)?;
            while_read(watch::run(args, stop.asked())).await?;
        }
        RedemptionCommand::Resolve(args) => resolve(args).await?,
        RedemptionCommand::Reverse(args) => reverse::run(args).await?,
        RedemptionCommand::Audit(args) => return while_read(audit::run(args)).await,
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(args: ListArgs) -> anyhow::Result<()> {
    // All of them fit on no terminal; `show` has the rest.
    let mut rows =
        args.list.rows(view::REDEMPTION, view::REDEMPTION_AT_A_GLANCE, Sink::stdout())?;
    let server = args.server.connect().await?;
    let pools = match &args.pool {
        Some(pool) => vec![pool.to_string()],
        None => pool_names(&server).await?,
    };
    let filter = pb::ListRedemptionsRequest {
        states: args.state.iter().map(|state| pb::RedemptionState::from(*state).into()).collect(),
        reversal_states: args
            .reversal
            .iter()
            .map(|state| pb::ReversalState::from(*state).into())
            .collect(),
        account_id: args.account.map(|account| account.to_string()).unwrap_or_default(),
        batch_id: args.batch_id.map(|batch| batch.to_string()).unwrap_or_default(),
        request_id: args.request_id.unwrap_or_default(),
        failure_reason: args.reason.unwrap_or_default(),
        holder: args.holder.unwrap_or_default(),
        code_last4: args.last4.unwrap_or_default(),
        create_time_from: args.since.map(parse::timestamp),
        create_time_to: args.until.map(parse::timestamp),
        ..Default::default()
    };
    for pool_id in pools {
        let filter = pb::ListRedemptionsRequest { pool_id, ..filter.clone() };
        each(&server, filter, |redemption, now| rows.push(&view::redemption(&redemption, now)))
            .await?;
    }
    rows.finish()?;
    Ok(())
}

/// Reads all redemptions that a filter lets through, each with the time at which it was so.
pub(super) async fn each(
    server: &Server,
    filter: pb::ListRedemptionsRequest,
    mut then: impl FnMut(pb::Redemption, OffsetDateTime) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut redemptions = server.redemptions();
    every_page(
        async |page_token| {
            let request =
                pb::ListRedemptionsRequest { page_token, page_size: PAGE_SIZE, ..filter.clone() };
            let reply = redemptions.list_redemptions(unary(request)).await?;
            let now = server_time(reply.metadata());
            let page = reply.into_inner();
            let rows = page.redemptions.into_iter().map(|redemption| (redemption, now)).collect();
            Ok((rows, page.next_page_token))
        },
        |(redemption, now)| then(redemption, now),
    )
    .await
}

async fn show(args: ShowArgs) -> anyhow::Result<()> {
    let server = args.server.connect().await?;
    let redemption_id = args.redemption.to_string();
    let reply = match &args.pool {
        Some(pool) => get(&server, pool.as_str(), &redemption_id).await.map_err(RpcError)?,
        None => {
            let found = find(&server, &pool_names(&server).await?, &redemption_id).await?;
            found.with_context(|| format!("no pool has a redemption {redemption_id}"))?
        }
    };
    print(args.format, reply, |reply| reply.redemption)
}

async fn resolve(args: ResolveArgs) -> anyhow::Result<()> {
    check(&args)?;
    let server = args.server.connect().await?;
    let (state, amount) = match (args.outcome, args.amount_minor) {
        (Outcome::Succeeded, Some(amount_minor)) => {
            let currency_code = pool_currency(&server, &args.pool).await?;
            let amount = pb::Money { amount_minor, currency_code };
            (pb::RedemptionState::Succeeded, Some(amount))
        }
        _ => (pb::RedemptionState::Failed, None),
    };
    let mut request = pb::ResolveRedemptionRequest {
        pool_id: args.pool.to_string(),
        redemption_id: args.redemption.to_string(),
        state: state.into(),
        amount,
        provider_ref: args.provider_ref,
        code_spent: args.code_spent,
        reason: args.reason,
        evidence: args.evidence,
        resolved_by: args.by.to_string(),
        recorded_amount_is_wrong: args.recorded_amount_is_wrong,
        corrects_resolution: args.corrects.unwrap_or_default(),
    };
    let reply = loop {
        let sent = unary(request.clone());
        match server.redemptions().resolve_redemption(sent).await {
            Ok(reply) => break reply,
            Err(status) => {
                let said = contradiction::of(&server, &request, &status).await?;
                let Some(said) = said.filter(|said| args.yes || contradiction::ask(said)) else {
                    return Err(RpcError(status).into());
                };
                said.insist(&mut request);
            }
        }
    };
    after_change(print(args.format, reply, |reply| reply.redemption))
}

/// What the flags' own rules cannot say. Such a word is for good: nothing is guessed.
fn check(args: &ResolveArgs) -> anyhow::Result<()> {
    match args.outcome {
        Outcome::Succeeded => {
            anyhow::ensure!(
                args.amount_minor.is_some(),
                "--outcome succeeded needs --amount-minor"
            );
            anyhow::ensure!(!args.code_spent, "--code-spent is for --outcome failed");
        }
        Outcome::Failed => {
            anyhow::ensure!(
                args.amount_minor.is_none(),
                "--amount-minor is for --outcome succeeded"
            );
        }
    }
    Ok(())
}

fn print<T>(
    format: FormatArgs,
    reply: tonic::Response<T>,
    redemption: fn(T) -> Option<pb::Redemption>,
) -> anyhow::Result<()> {
    let now = server_time(reply.metadata());
    let redemption = required(redemption(reply.into_inner()), "redemption")?;
    let row = view::redemption(&redemption, now);
    record(format.for_stdout(), view::REDEMPTION, &row, Sink::stdout())?;
    Ok(())
}
