//! The command line: one folder a subject. Commands that talk to a server do so over gRPC alone, as
//! any client could.
//!
//! Exit codes:
//!
//! - 0: all is well;
//! - 1: an error, also an output that was closed or is full;
//! - 2: arguments, or a config file, that cannot be read;
//! - 3: `redeem-batch` went through but something is left to do, or `redemption audit` found differences.

mod access;
mod account;
mod audit_log;
mod batch;
mod demo;
mod doctor;
mod examples;
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
mod settings;
mod shared;
mod simulate;
mod subscription;

use std::{ffi::OsString, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

use self::shared::{
    log::Logging,
    output::{self, note},
    stop::Stop,
};
use crate::{config::ServeArgs, core_dumps, embedded, listener::address::parse_address};

/// The commands, as they were given.
#[derive(Debug)]
pub struct Cli(Arguments);

/// Locks accounts and redeems card codes into them, exactly once.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, max_term_width = 100)]
struct Arguments {
    /// Stops when standard input ends, as it does when the program that started this one dies.
    #[arg(long, global = true, hide = true)]
    while_stdin_is_open: bool,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server. Without a database URL it starts a private Postgres of its own.
    Serve(Box<Logging<ServeArgs>>),
    /// Bring a database's schema up to date, then exit. Serving does so too.
    Migrate(Logging<migrate::MigrateArgs>),
    /// Print the SQL that gives a role of the database what serving needs, and no more.
    Grants(migrate::GrantsArgs),
    /// Secret keys: which are in use, and changing to another while servers run.
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Show the whole thing on one machine: Postgres, a provider, the server, batches, a report.
    Demo(demo::DemoArgs),
    /// Serve the provider's contract with cards, a ledger and faults of its own, to try things on.
    #[command(mut_arg("listen", |arg| arg.value_parser(parse_address)))]
    SimulateProvider(Box<Logging<holdfast_simulator::SimulatorArgs>>),
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
    /// Subscriptions: outcomes that are sent to a URL as they are recorded, and what was not taken.
    #[command(subcommand)]
    Subscription(subscription::SubscriptionCommand),
    /// Providers: the profiles that say how each is asked, and what its answers mean.
    #[command(subcommand)]
    Provider(provider::ProviderCommand),
    /// Tokens: what callers show, and what they may do with it.
    #[command(subcommand)]
    Token(access::TokenCommand),
    /// Show what people did and which settings were changed: who, from where, what, before and after.
    AuditLog(audit_log::AuditLogArgs),
    /// See whether a server, its database, its providers and this machine are as they should be, and say what to do.
    Doctor(Box<doctor::DoctorArgs>),
    /// Settings: what each is and where that comes from, and whether a config file can be used.
    #[command(subcommand)]
    Config(settings::show::ConfigCommand),
    /// Print the completion script of a shell.
    Completions(manual::CompletionsArgs),
    /// Write the manual pages of all commands.
    Man(manual::ManArgs),
}

impl Command {
    /// `PG*` variables complete a database URL that somebody gave; they say nothing of a private Postgres.
    fn leave_out_what_is_for_other_databases(&self) -> anyhow::Result<()> {
        match self {
            Self::Serve(args) if args.args.has_private_postgres() => {
                embedded::leave_out_pg_variables()
            }
            _ => Ok(()),
        }
    }

    /// Keeps the memory of a command that has keys from everybody else, and that of any command out of core dumps.
    fn hide_memory(&self) -> anyhow::Result<()> {
        core_dumps::turn_off().context("core dumps cannot be turned off")?;
        if let Self::Serve(_) | Self::Keys(_) | Self::Doctor(_) = self {
            core_dumps::hide_memory().context("this program's memory cannot be hidden")?;
        }
        Ok(())
    }
}

/// What the program takes: the commands as they are written down, with their examples and the option for the file of
/// settings.
fn definition() -> clap::Command {
    settings::with_config_option(examples::with_examples(Arguments::command()))
}

impl CommandFactory for Cli {
    fn command() -> clap::Command {
        definition()
    }

    fn command_for_update() -> clap::Command {
        definition()
    }
}

impl FromArgMatches for Cli {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Arguments::from_arg_matches(matches).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.update_from_arg_matches(matches)
    }
}

impl Parser for Cli {}

impl Cli {
    /// The settings of a server, where the command is `serve`.
    fn serve_args(&self) -> Option<&ServeArgs> {
        match &self.0.command {
            Command::Serve(args) => Some(&args.args),
            _ => None,
        }
    }
}

/// Reads the words of a command line and the file of settings, and runs the command to its end. Its error, if any, is
/// printed once.
pub fn run_to_exit(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let line = match settings::with_file(&definition(), words.into_iter().collect()) {
        Ok(line) => line,
        Err(error) => {
            output::error(&error);
            return ExitCode::from(UNREADABLE);
        }
    };
    let Arguments { command, while_stdin_is_open } = match Cli::try_parse_from(&line.words) {
        Ok(cli) => cli.0,
        Err(error) => return refused(&error, &line),
    };
    let prepared = command.leave_out_what_is_for_other_databases();
    let prepared = prepared.and_then(|()| command.hide_memory());
    let done = prepared.and_then(|()| runtime()).and_then(|runtime| {
        let done = runtime.block_on(run(command, while_stdin_is_open, line.file));
        // What stands still in a thread, such as a file on a dead disk, does not keep the process from ending.
        runtime.shutdown_timeout(THREADS_TIMEOUT);
        done
    });
    match done {
        Ok(code) => code,
        Err(error) => {
            output::error(&error);
            ExitCode::FAILURE
        }
    }
}

/// How long threads that still do something are waited for at the end.
const THREADS_TIMEOUT: Duration = Duration::from_millis(500);

/// The exit code for arguments that cannot be read.
const UNREADABLE: u8 = 2;

/// Prints what is wrong with a command line, or the help that it asks for, and answers with the exit code.
fn refused(error: &clap::Error, line: &settings::Line) -> ExitCode {
    let _ = error.print();
    if error.use_stderr() && !line.added.is_empty() {
        let file = line.file.as_deref().unwrap_or(std::path::Path::new("")).display();
        note(format_args!("\nthe config file {file} added: {}", line.added.join(" ")));
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(UNREADABLE))
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the worker threads cannot be started")
}

async fn run(
    command: Command,
    while_stdin_is_open: bool,
    config: Option<PathBuf>,
) -> anyhow::Result<ExitCode> {
    let stop = || Stop::listen(while_stdin_is_open);
    match command {
        Command::Serve(args) => Box::pin(serve::run(args.begin()?, stop()?)).await.map(done),
        Command::Migrate(args) => Box::pin(migrate::run(args.begin()?)).await.map(done),
        Command::Grants(args) => Box::pin(migrate::grants(args)).await.map(done),
        Command::Keys(command) => Box::pin(keys::run(command)).await.map(done),
        Command::Demo(args) => Box::pin(demo::run(args)).await,
        Command::SimulateProvider(args) => {
            Box::pin(simulate::run(Box::new(args.begin()?), stop()?)).await.map(done)
        }
        Command::Pool(command) => Box::pin(pool::run(command, stop)).await.map(done),
        Command::Plan(command) => Box::pin(plan::run(command)).await.map(done),
        Command::Account(command) => Box::pin(account::run(command)).await.map(done),
        Command::Lease(command) => Box::pin(lease::run(command)).await.map(done),
        Command::RedeemBatch(args) => Box::pin(batch::run(args, stop)).await,
        Command::Redemption(command) => Box::pin(redemption::run(command)).await,
        Command::Subscription(command) => Box::pin(subscription::run(command)).await.map(done),
        Command::Provider(command) => Box::pin(provider::run(command)).await,
        Command::Token(command) => Box::pin(access::run(command)).await.map(done),
        Command::AuditLog(args) => Box::pin(audit_log::run(args)).await.map(done),
        Command::Doctor(args) => Box::pin(doctor::run(*args)).await,
        Command::Config(command) => settings::show::run(command, config).map(done),
        Command::Completions(args) => manual::completions(&args).map(done),
        Command::Man(args) => manual::man(&args).map(done),
    }
}

fn done((): ()) -> ExitCode {
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests;
