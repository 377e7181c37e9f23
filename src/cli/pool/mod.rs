//! `holdfast pool`: create, change, list, pause, drain, resume and delete pools.

mod change;
mod drain;

use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};

use self::change::{ChangeArgs, print_changed, set};
use super::shared::{
    client::{RpcError, ServerArgs, unary, wire},
    list::ListOptions,
    output::{FormatArgs, Sink, note, while_read},
    parse,
    pools::each_pool,
    stop::Stop,
    view,
};
use crate::{
    config::parse_duration,
    domain::{
        id::{PoolId, ProviderId},
        money::Currency,
    },
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
    Drain(drain::DrainArgs),
    /// End a pause and a drain.
    Resume(ChangeArgs),
    /// Delete a pool that never had an account, with its plans.
    Delete(DeleteArgs),
}

#[derive(Args, Debug)]
pub(super) struct CreateArgs {
    /// The pool's name: 1 to 128 letters, digits, '.', '_' and '-'.
    #[arg(value_parser = parse::pool)]
    pool: PoolId,
    /// The pool's one currency (ISO 4217), such as EUR. Never changes.
    #[arg(long, value_parser = parse::currency)]
    currency: Currency,
    /// The provider that redeems its cards: one whose profile was applied. The built-in profile,
    /// holdfast, when not given. Never changes.
    #[arg(long, value_parser = parse::provider, value_name = "ID")]
    provider: Option<ProviderId>,
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
    /// The share of the leases that a server gave out last, 1 to 100. A holder that got more waits behind
    /// callers of other holders. 50 when not given on creation.
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..=100), value_name = "PERCENT")]
    holder_share_percent: Option<i32>,
    /// How long an account is on hold after its login was refused: 1h when not given on
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
    /// A pool with these settings alone.
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
pub(super) struct DeleteArgs {
    /// The pool.
    #[arg(value_parser = parse::pool)]
    pool: PoolId,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args, Debug)]
pub(super) struct ListArgs {
    #[command(flatten)]
    list: ListOptions,
    #[command(flatten)]
    server: ServerArgs,
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
        PoolCommand::Drain(args) => drain::run(args, stop).await,
        PoolCommand::Delete(args) => delete(args).await,
        PoolCommand::Resume(args) => set(args, &[("paused", false), ("draining", false)]).await,
    }
}

async fn create(args: CreateArgs) -> anyhow::Result<()> {
    let settings = args.settings.of(args.pool.to_string())?;
    let pool = pb::Pool {
        currency_code: args.currency.to_string(),
        provider_id: args.provider.map(|id| id.to_string()).unwrap_or_default(),
        ..settings
    };
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

async fn delete(args: DeleteArgs) -> anyhow::Result<()> {
    let request = unary(pb::DeletePoolRequest { pool_id: args.pool.to_string() });
    args.server.connect().await?.pools().delete_pool(request).await.map_err(RpcError)?;
    note(format_args!("pool {} is deleted", args.pool));
    Ok(())
}

async fn list(args: ListArgs) -> anyhow::Result<()> {
    let mut rows = args.list.rows(view::POOL, view::POOL, Sink::stdout())?;
    let server = args.server.connect().await?;
    each_pool(&server, |pool| rows.push(&view::pool(&pool))).await?;
    rows.finish()?;
    Ok(())
}
