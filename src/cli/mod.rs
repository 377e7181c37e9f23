//! The command line: one folder a subject. Commands that talk to a server do so over gRPC alone, as
//! any client could.
//!
//! Exit codes:
//!
//! - 0: all is well;
//! - 1: an error, also an output that was closed or is full;
//! - 2: arguments that cannot be read;
//! - 3: `redeem-batch` went through but something is left to do, or `redemption audit` found differences.

mod access;
mod account;
mod audit_log;
mod batch;
mod demo;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzz;
mod keys;
mod lease;
mod manual;
mod migrate;
mod plan;
mod pool;
mod provider;
mod redemption;
mod serve;
mod shared;
mod simulate;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use self::shared::{output, stop::Stop};
use crate::{core_dumps, embedded, listener::address::parse_address};

/// Locks accounts and redeems card codes into them, exactly once.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    /// What serve, simulate-provider and migrate log: a level, or a list of target=level, such as info,holdfast=debug. To standard
    /// error: text on a terminal, JSON otherwise.
    #[arg(long, global = true, env = "HOLDFAST_LOG", default_value = "info")]
    log: String,

    /// Stops when standard input ends, as it does when the program that started this one dies.
    #[arg(long, global = true, hide = true)]
    while_stdin_is_open: bool,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server. Without a database URL it starts a private Postgres of its own.
    Serve(Box<crate::config::ServeArgs>),
    /// Bring a database's schema up to date, then exit. Serving does so too.
    Migrate(migrate::MigrateArgs),
    /// Secret keys: which are in use, and changing to another while servers run.
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Show the whole thing on one machine: Postgres, a provider, the server, batches, a report.
    Demo(demo::DemoArgs),
    /// Serve the provider's contract with cards, a ledger and faults of its own, to try things on.
    #[command(mut_arg("listen", |arg| arg.value_parser(parse_address)))]
    SimulateProvider(Box<holdfast_simulator::SimulatorArgs>),
    /// Pools: sets of interchangeable accounts of one provider.
    #[command(subcommand)]
    Pool(pool::PoolCommand),
    /// Plans: what accounts are being filled for, on which days and with which cards.
    #[command(subcommand)]
    Plan(plan::PlanCommand),
    /// Accounts: what cards are redeemed into.
    #[command(subcommand)]
    Account(account::AccountCommand),
    /// Leases: end one whose holder does not.
    #[command(subcommand)]
    Lease(lease::LeaseCommand),
    /// Redeem the cards of a file; run it again with the same --batch-id to go on with the rest.
    RedeemBatch(batch::RedeemBatchArgs),
    /// Redemptions: list them, show one, settle one that only a person can.
    #[command(subcommand)]
    Redemption(redemption::RedemptionCommand),
    /// Providers: the profiles that say how each is asked, and what its answers mean.
    #[command(subcommand)]
    Provider(provider::ProviderCommand),
    /// Tokens: what callers show, and what they may do with it.
    #[command(subcommand)]
    Token(access::TokenCommand),
    /// Show what people did and which settings were changed: who, from where, what, before and after.
    AuditLog(audit_log::AuditLogArgs),
    /// Print the completion script of a shell.
    Completions(manual::CompletionsArgs),
    /// Write the manual pages of all commands.
    Man(manual::ManArgs),
}

impl Command {
    /// `PG*` variables complete a database URL that somebody gave; they say nothing of a private Postgres.
    fn leave_out_what_is_for_other_databases(&self) -> anyhow::Result<()> {
        match self {
            Self::Serve(args) if args.has_private_postgres() => embedded::leave_out_pg_variables(),
            _ => Ok(()),
        }
    }

    /// Keeps the memory of a command that has keys from everybody else, and that of any command out of core dumps.
    fn hide_memory(&self) -> anyhow::Result<()> {
        core_dumps::turn_off().context("core dumps cannot be turned off")?;
        if let Self::Serve(_) | Self::Keys(_) = self {
            core_dumps::hide_memory().context("this program's memory cannot be hidden")?;
        }
        Ok(())
    }
}

/// Runs a command to its end. Its error, if any, is printed once.
pub fn run_to_exit(cli: Cli) -> ExitCode {
    let prepared = cli.command.leave_out_what_is_for_other_databases();
    let prepared = prepared.and_then(|()| cli.command.hide_memory());
    let done = prepared.and_then(|()| runtime()).and_then(|runtime| runtime.block_on(run(cli)));
    match done {
        Ok(code) => code,
        Err(error) => {
            output::error(&error);
            ExitCode::FAILURE
        }
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the worker threads cannot be started")
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let logs = |command: &Command| {
        matches!(
            command,
            Command::Serve(_)
                | Command::SimulateProvider(_)
                | Command::Migrate(_)
                | Command::Keys(_)
        )
    };
    if logs(&cli.command) {
        crate::telemetry::init_logs(&cli.log)?;
    }
    let stop = || Stop::listen(cli.while_stdin_is_open);
    match cli.command {
        Command::Serve(args) => Box::pin(serve::run(*args, stop()?)).await.map(done),
        Command::Migrate(args) => Box::pin(migrate::run(args)).await.map(done),
        Command::Keys(command) => Box::pin(keys::run(command)).await.map(done),
        Command::Demo(args) => Box::pin(demo::run(args)).await,
        Command::SimulateProvider(args) => Box::pin(simulate::run(args, stop()?)).await.map(done),
        Command::Pool(command) => Box::pin(pool::run(command, stop)).await.map(done),
        Command::Plan(command) => Box::pin(plan::run(command)).await.map(done),
        Command::Account(command) => Box::pin(account::run(command)).await.map(done),
        Command::Lease(command) => Box::pin(lease::run(command)).await.map(done),
        Command::RedeemBatch(args) => Box::pin(batch::run(args, stop)).await,
        Command::Redemption(command) => Box::pin(redemption::run(command)).await,
        Command::Provider(command) => Box::pin(provider::run(command)).await,
        Command::Token(command) => Box::pin(access::run(command)).await.map(done),
        Command::AuditLog(args) => Box::pin(audit_log::run(args)).await.map(done),
        Command::Completions(args) => manual::completions(&args).map(done),
        Command::Man(args) => manual::man(&args).map(done),
    }
}

fn done((): ()) -> ExitCode {
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests;
