//! `holdfast subscription`: outcomes that are sent to a URL.

use std::{path::PathBuf, time::Duration};

use clap::{ArgGroup, Args, Subcommand, ValueEnum};

use super::shared::{
    client::{PAGE_SIZE, RpcError, ServerArgs, required, unary, wire},
    list::{ListOptions, print_list},
    output::{FormatArgs, Sink, after_change, note, record, while_read},
    parse, view,
};
use crate::{
    app::write_secret,
    config::parse_duration,
    domain::{
        id::{PoolId, SubscriptionId},
        subscription::DeliveryId,
    },
    rpc::pb,
};

/// What to do about subscriptions.
#[derive(Debug, Subcommand)]
pub(super) enum SubscriptionCommand {
    /// Make a subscription, and print the secret that its receiver verifies deliveries with: once.
    Create(CreateArgs),
    /// List the subscriptions of a pool.
    List(ListArgs),
    /// Show a subscription, how its receiver does, and how many deliveries it did not take.
    Show(ShowArgs),
    /// Change where outcomes are sent, or which are; pause it, or resume it. Nothing is missed.
    Update(UpdateArgs),
    /// Give a subscription another secret, and print it: once. The one before signs too for a while.
    RotateSecret(RotateArgs),
    /// Delete a subscription, with the deliveries that it did not take.
    Delete(NameArgs),
    /// List the deliveries that were not taken: those that are tried again, and the dead letters.
    Deliveries(DeliveriesArgs),
    /// Try deliveries again now: these, or all dead letters.
    Retry(RetryArgs),
}

/// Which subscription.
#[derive(Args, Debug)]
pub(super) struct NameArgs {
    /// The subscription: 1 to 128 letters, digits, '.', '_' and '-'.
    #[arg(value_parser = parse::subscription)]
    subscription: SubscriptionId,
    /// Its pool.
    #[arg(long, value_parser = parse::pool)]
    pool: PoolId,
    #[command(flatten)]
    server: ServerArgs,
}

/// An outcome's state, as it is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum StateArg {
    Succeeded,
    Failed,
}

impl StateArg {
    fn message(self) -> i32 {
        match self {
            Self::Succeeded => pb::RedemptionState::Succeeded.into(),
            Self::Failed => pb::RedemptionState::Failed.into(),
        }
    }
}

#[derive(Args, Debug)]
pub(super) struct CreateArgs {
    #[command(flatten)]
    name: NameArgs,
    /// Where outcomes are sent: https, or http to the server's own machine.
    #[arg(long)]
    url: String,
    /// Let the URL be http to another machine.
    #[arg(long)]
    allow_plain: bool,
    /// Only outcomes of these states, with commas between them; all when not given.
    #[arg(long, value_enum, value_delimiter = ',')]
    state: Vec<StateArg>,
    /// From where on: `oldest`, or a cursor of `holdfast redemption watch`. When not given: what is recorded from now on.
    #[arg(long, value_name = "CURSOR", default_value = "", hide_default_value = true)]
    after: String,
    /// A file to write the secret to, readable for its owner alone, instead of printing it. It must not be there yet.
    #[arg(long)]
    out: Option<PathBuf>,
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

#[derive(Args, Debug)]
pub(super) struct ShowArgs {
    #[command(flatten)]
    name: NameArgs,
    #[command(flatten)]
    format: FormatArgs,
}

#[derive(Args, Debug)]
#[command(group = ArgGroup::new("change").required(true).multiple(true)
    .args(["url", "allow_plain", "https_only", "state", "all_states", "pause", "resume"]))]
pub(super) struct UpdateArgs {
    #[command(flatten)]
    name: NameArgs,
    /// Where outcomes are sent.
    #[arg(long)]
    url: Option<String>,
    /// Let the URL be http to another machine.
    #[arg(long)]
    allow_plain: bool,
    /// No longer let the URL be http to another machine.
    #[arg(long, conflicts_with = "allow_plain")]
    https_only: bool,
    /// Only outcomes of these states, with commas between them.
    #[arg(long, value_enum, value_delimiter = ',')]
    state: Vec<StateArg>,
    /// Outcomes of all states.
    #[arg(long, conflicts_with = "state")]
    all_states: bool,
    /// Send nothing until it is resumed.
    #[arg(long)]
    pause: bool,
    /// Go on, with what was recorded meanwhile first.
    #[arg(long, conflicts_with = "pause")]
    resume: bool,
    #[command(flatten)]
    format: FormatArgs,
}

#[derive(Args, Debug)]
pub(super) struct RotateArgs {
    #[command(flatten)]
    name: NameArgs,
    /// For how long the secret before signs too, 0s to 30days; a day when not given.
    #[arg(long, value_parser = parse_duration)]
    overlap: Option<Duration>,
    /// A file to write the secret to, readable for its owner alone, instead of printing it. It must not be there yet.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// What became of a delivery, as it is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DeliveryStateArg {
    Retrying,
    Dead,
}

#[derive(Args, Debug)]
pub(super) struct DeliveriesArgs {
    #[command(flatten)]
    name: NameArgs,
    /// Only those that are tried again, or only the dead letters.
    #[arg(long, value_enum)]
    state: Option<DeliveryStateArg>,
    #[command(flatten)]
    list: ListOptions,
}

#[derive(Args, Debug)]
#[command(group = ArgGroup::new("which").required(true).args(["delivery", "all_dead"]))]
pub(super) struct RetryArgs {
    #[command(flatten)]
    name: NameArgs,
    /// This delivery; may be given several times.
    #[arg(long, value_parser = parse::delivery)]
    delivery: Vec<DeliveryId>,
    /// All dead letters.
    #[arg(long)]
    all_dead: bool,
}

/// Runs one of the commands.
pub(super) async fn run(command: SubscriptionCommand) -> anyhow::Result<()> {
    match command {
        SubscriptionCommand::Create(args) => create(args).await,
        SubscriptionCommand::List(args) => while_read(list(args)).await,
        SubscriptionCommand::Show(args) => while_read(show(args)).await,
        SubscriptionCommand::Update(args) => update(args).await,
        SubscriptionCommand::RotateSecret(args) => rotate(args).await,
        SubscriptionCommand::Delete(args) => delete(args).await,
        SubscriptionCommand::Deliveries(args) => while_read(deliveries(args)).await,
        SubscriptionCommand::Retry(args) => retry(args).await,
    }
}

fn named(name: &NameArgs) -> pb::Subscription {
    pb::Subscription {
        pool_id: name.pool.to_string(),
        subscription_id: name.subscription.to_string(),
        ..Default::default()
    }
}

fn check_out(out: Option<&PathBuf>) -> anyhow::Result<()> {
    let is_there = out.filter(|out| out.exists());
    anyhow::ensure!(
        is_there.is_none(),
        "{} is there already: choose another file",
        is_there.map(|out| out.display().to_string()).unwrap_or_default()
    );
    Ok(())
}

fn hand_over(name: &NameArgs, out: Option<&PathBuf>, secret: &str) -> anyhow::Result<()> {
    let id = &name.subscription;
    match out {
        Some(out) => {
            write_secret(out, secret)?;
            note(format_args!("the secret of subscription {id} is in {}", out.display()));
        }
        None => {
            let mut sink = Sink::stdout();
            sink.line(secret)?;
            sink.flush()?;
            note(format_args!(
                "this is the secret of subscription {id}: keep it, it is not shown again"
            ));
        }
    }
    Ok(())
}

async fn create(args: CreateArgs) -> anyhow::Result<()> {
    check_out(args.out.as_ref())?;
    let subscription = pb::Subscription {
        url: args.url.clone(),
        allow_plain: args.allow_plain.then_some(true),
        states: args.state.iter().map(|state| state.message()).collect(),
        ..named(&args.name)
    };
    let request = pb::CreateSubscriptionRequest {
        subscription: Some(subscription),
        after: args.after.clone(),
    };
    let mut subscriptions = args.name.server.connect().await?.subscriptions();
    let reply = subscriptions.create_subscription(unary(request)).await.map_err(RpcError)?;
    after_change(hand_over(&args.name, args.out.as_ref(), &reply.into_inner().secret))
}

async fn list(args: ListArgs) -> anyhow::Result<()> {
    let rows =
        args.list.rows(view::SUBSCRIPTION, view::SUBSCRIPTION_AT_A_GLANCE, Sink::stdout())?;
    let mut subscriptions = args.server.connect().await?.subscriptions();
    print_list(
        rows,
        async |page_token| {
            let pool_id = args.pool.to_string();
            let request =
                pb::ListSubscriptionsRequest { pool_id, page_size: PAGE_SIZE, page_token };
            let page = subscriptions.list_subscriptions(unary(request)).await?.into_inner();
            Ok((page.subscriptions, page.next_page_token))
        },
        view::subscription,
    )
    .await
}

async fn show(args: ShowArgs) -> anyhow::Result<()> {
    let pb::Subscription { pool_id, subscription_id, .. } = named(&args.name);
    let request = unary(pb::GetSubscriptionRequest { pool_id, subscription_id });
    let reply = args.name.server.connect().await?.subscriptions().get_subscription(request).await;
    let row = view::subscription_shown(&required(
        reply.map_err(RpcError)?.into_inner().subscription,
        "subscription",
    )?);
    record(args.format.for_stdout(), view::SUBSCRIPTION_SHOWN, &row, Sink::stdout())?;
    Ok(())
}

async fn update(args: UpdateArgs) -> anyhow::Result<()> {
    let (mut subscription, mut paths) = (named(&args.name), Vec::new());
    if let Some(url) = args.url {
        subscription.url = url;
        paths.push("url");
    }
    if args.allow_plain || args.https_only {
        subscription.allow_plain = Some(args.allow_plain);
        paths.push("allow_plain");
    }
    if !args.state.is_empty() || args.all_states {
        subscription.states = args.state.iter().map(|state| state.message()).collect();
        paths.push("states");
    }
    if args.pause || args.resume {
        subscription.paused = Some(args.pause);
        paths.push("paused");
    }
    let paths = paths.into_iter().map(str::to_owned).collect();
    let request = pb::UpdateSubscriptionRequest {
        subscription: Some(subscription),
        update_mask: Some(prost_types::FieldMask { paths }),
    };
    let mut subscriptions = args.name.server.connect().await?.subscriptions();
    let reply = subscriptions.update_subscription(unary(request)).await.map_err(RpcError)?;
    let row = view::subscription(&required(reply.into_inner().subscription, "subscription")?);
    let format = args.format.for_stdout();
    after_change(record(format, view::SUBSCRIPTION, &row, Sink::stdout()).map(drop))
}

async fn rotate(args: RotateArgs) -> anyhow::Result<()> {
    check_out(args.out.as_ref())?;
    let pb::Subscription { pool_id, subscription_id, .. } = named(&args.name);
    let overlap = wire(args.overlap)?;
    let request = pb::RotateSubscriptionSecretRequest { pool_id, subscription_id, overlap };
    let mut subscriptions = args.name.server.connect().await?.subscriptions();
    let reply = subscriptions.rotate_subscription_secret(unary(request)).await.map_err(RpcError)?;
    after_change(hand_over(&args.name, args.out.as_ref(), &reply.into_inner().secret))
}

async fn delete(args: NameArgs) -> anyhow::Result<()> {
    let pb::Subscription { pool_id, subscription_id, .. } = named(&args);
    let request = unary(pb::DeleteSubscriptionRequest { pool_id, subscription_id });
    let mut subscriptions = args.server.connect().await?.subscriptions();
    subscriptions.delete_subscription(request).await.map_err(RpcError)?;
    note(format_args!("subscription {} of pool {} is deleted", args.subscription, args.pool));
    Ok(())
}

async fn deliveries(args: DeliveriesArgs) -> anyhow::Result<()> {
    let rows = args.list.rows(view::DELIVERY, view::DELIVERY_AT_A_GLANCE, Sink::stdout())?;
    let mut subscriptions = args.name.server.connect().await?.subscriptions();
    let state = match args.state {
        None => pb::DeliveryState::Unspecified,
        Some(DeliveryStateArg::Retrying) => pb::DeliveryState::Retrying,
        Some(DeliveryStateArg::Dead) => pb::DeliveryState::Dead,
    };
    print_list(
        rows,
        async |page_token| {
            let request = pb::ListDeliveriesRequest {
                pool_id: args.name.pool.to_string(),
                subscription_id: args.name.subscription.to_string(),
                state: state.into(),
                page_size: PAGE_SIZE,
                page_token,
            };
            let page = subscriptions.list_deliveries(unary(request)).await?.into_inner();
            Ok((page.deliveries, page.next_page_token))
        },
        view::delivery,
    )
    .await
}

async fn retry(args: RetryArgs) -> anyhow::Result<()> {
    let pb::Subscription { pool_id, subscription_id, .. } = named(&args.name);
    let delivery_ids = args.delivery.iter().map(ToString::to_string).collect();
    let request = unary(pb::RetryDeliveriesRequest { pool_id, subscription_id, delivery_ids });
    let mut subscriptions = args.name.server.connect().await?.subscriptions();
    let reply = subscriptions.retry_deliveries(request).await.map_err(RpcError)?;
    note(format_args!("{} deliveries are tried again", reply.into_inner().retried));
    Ok(())
}
