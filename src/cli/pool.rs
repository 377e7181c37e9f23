//! `holdfast pool`: create, change, list, pause, drain and resume pools.

use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};

use super::{
    client::{PAGE_SIZE, RpcError, Server, ServerArgs, every_page, required, unary},
    output::{FormatArgs, Rows, Sink, after_change, record, while_read},
    parse, pool_drain,
    stop::Stop,
    view,
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
    /// Change a pool's settings. Leases that are out keep their time.
    Update(UpdateArgs),
    /// List all pools.
    List(ListArgs),
    /// Begin nothing new in a pool; what was begun is finished.
    Pause(ChangeArgs),
    /// Give out no new leases in a pool; those that are out redeem until they end.
    Drain(pool_drain::DrainArgs),
    /// End a pause and a drain.
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
    #[command(flatten)]
    settings: SettingsArgs,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args, Debug)]
#[command(group = ArgGroup::new("change").required(true).multiple(true).args(SETTINGS))]
pub(super) struct UpdateArgs {
    /// The pool.
    #[arg(value_parser = parse::pool)]
    pool: PoolId,
    #[command(flatten)]
    settings: SettingsArgs,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    server: ServerArgs,
}

/// What can be set of a pool, on creation and later.
#[derive(Args, Debug)]
struct SettingsArgs {
    /// The lease that an acquisition gets when it asks for none: 1s to 24h. 60s when not given on
    /// creation.
    #[arg(long, value_parser = parse_duration)]
    default_lease: Option<Duration>,
    /// The shortest lease that can be asked for: 1s to 24h. 1s when not given on creation.
    #[arg(long, value_parser = parse_duration)]
    min_lease: Option<Duration>,
    /// The longest lease that can be asked for: 1s to 24h. 10m when not given on creation.
    #[arg(long, value_parser = parse_duration)]
    max_lease: Option<Duration>,
    /// What becomes of a redemption credited with another amount than expected: accept when not given
    /// on creation.
    #[arg(long, value_enum)]
    amount_mismatch: Option<AmountMismatch>,
    /// While callers of other holders wait, a holder that got more than this share of the leases that
    /// a server handed out last waits behind them: 1 to 100. 50 when not given on creation.
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..=100), value_name = "PERCENT")]
    holder_share_percent: Option<i32>,
    /// How long an account is left in peace after its login was refused: 1h when not given on
    /// creation. Each hold doubles with every such failure in a row.
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    hold_login_invalid: Option<Duration>,
    /// The same, after it reached the provider's limit: 1h when not given on creation.
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    hold_limit_reached: Option<Duration>,
    /// The same, after the provider wanted it slower: 1m when not given on creation.
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    hold_throttled: Option<Duration>,
    /// No hold is longer: 24h when not given on creation, or the longest of the others that are given.
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    hold_longest: Option<Duration>,
}

/// The flags of [`SettingsArgs`], by their names in clap.
const SETTINGS: [&str; 9] = [
    "default_lease",
    "min_lease",
    "max_lease",
    "amount_mismatch",
    "holder_share_percent",
    "hold_login_invalid",
    "hold_limit_reached",
    "hold_throttled",
    "hold_longest",
];

impl SettingsArgs {
    /// A pool of which this is set and nothing else.
    fn of(&self, pool_id: String) -> anyhow::Result<pb::Pool> {
        let policy = match self.amount_mismatch {
            None => pb::AmountMismatchPolicy::Unspecified,
            Some(AmountMismatch::Accept) => pb::AmountMismatchPolicy::Accept,
            Some(AmountMismatch::NeedsReview) => pb::AmountMismatchPolicy::NeedsReview,
        };
        let holds = pb::HoldDurations {
            login_invalid: wire(self.hold_login_invalid)?,
            limit_reached: wire(self.hold_limit_reached)?,
            throttled: wire(self.hold_throttled)?,
            longest: wire(self.hold_longest)?,
        };
        Ok(pb::Pool {
            pool_id,
            default_lease_duration: wire(self.default_lease)?,
            min_lease_duration: wire(self.min_lease)?,
            max_lease_duration: wire(self.max_lease)?,
            amount_mismatch_policy: policy.into(),
            holder_share_percent: self.holder_share_percent.unwrap_or(0),
            hold_durations: (holds != pb::HoldDurations::default()).then_some(holds),
            ..Default::default()
        })
    }
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
    pub(super) pool: PoolId,
    #[command(flatten)]
    pub(super) format: FormatArgs,
    #[command(flatten)]
    pub(super) server: ServerArgs,
}

/// Runs one of the commands.
pub(super) async fn run(
    command: PoolCommand,
    stop: impl FnOnce() -> anyhow::Result<Stop>,
) -> anyhow::Result<()> {
    match command {
        PoolCommand::Create(args) => create(args).await,
        PoolCommand::Update(args) => update(args).await,
        PoolCommand::List(args) => while_read(list(args)).await,
        PoolCommand::Pause(args) => set(args, &[("paused", true)]).await,
        PoolCommand::Drain(args) => pool_drain::run(args, stop).await,
        PoolCommand::Resume(args) => set(args, &[("paused", false), ("draining", false)]).await,
    }
}

async fn create(args: CreateArgs) -> anyhow::Result<()> {
    let settings = args.settings.of(args.pool.to_string())?;
    let pool = pb::Pool { currency_code: args.currency.to_string(), ..settings };
    let request = unary(pb::CreatePoolRequest { pool: Some(pool) });
    let reply = args.server.connect().await?.pools().create_pool(request).await;
    print_changed(args.format, reply.map_err(RpcError)?.into_inner().pool)
}

async fn update(args: UpdateArgs) -> anyhow::Result<()> {
    // Without a mask: what is set is changed.
    let pool = Some(args.settings.of(args.pool.to_string())?);
    let request = unary(pb::UpdatePoolRequest { pool, update_mask: None });
    let reply = args.server.connect().await?.pools().update_pool(request).await;
    print_changed(args.format, reply.map_err(RpcError)?.into_inner().pool)
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

async fn set(args: ChangeArgs, flags: &[(&str, bool)]) -> anyhow::Result<()> {
    let server = args.server.connect().await?;
    print_changed(args.format, Some(set_flags(&server, &args.pool, flags).await?))
}

/// Sets `paused`, `draining` or both of a pool, and answers with the pool.
pub(super) async fn set_flags(
    server: &Server,
    pool: &PoolId,
    flags: &[(&str, bool)],
) -> anyhow::Result<pb::Pool> {
    let flag = |name: &str| flags.iter().find(|(flag, _)| *flag == name).map(|(_, set)| *set);
    let (paused, draining) = (flag("paused"), flag("draining"));
    let pool = pb::Pool { pool_id: pool.to_string(), paused, draining, ..Default::default() };
    let request = unary(pb::UpdatePoolRequest { pool: Some(pool), update_mask: None });
    let reply = server.pools().update_pool(request).await.map_err(RpcError)?;
    required(reply.into_inner().pool, "pool")
}

/// Prints a pool that was changed.
pub(super) fn print_changed(format: FormatArgs, pool: Option<pb::Pool>) -> anyhow::Result<()> {
    let print = || {
        let row = view::pool(&required(pool, "pool")?);
        record(format.for_stdout(), view::POOL, &row, Sink::stdout()).map(drop)
    };
    after_change(print())
}

/// A duration as the contract has it.
pub(super) fn wire(span: Option<Duration>) -> anyhow::Result<Option<prost_types::Duration>> {
    Ok(span.map(prost_types::Duration::try_from).transpose()?)
}
