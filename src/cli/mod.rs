//! The command line: one file a command. Commands that talk to a server do so over gRPC alone, as
//! any client could.
//!
//! Exit codes: 0 when all is well, 1 for an error, 2 for arguments that cannot be read, and 3 when
//! `redeem-batch` went through but some of it wants a look, or `redemption audit` found differences.

mod account;
mod account_import;
mod audit;
mod client;
mod csv_files;
mod demo;
#[cfg(test)]
mod fake;
mod migrate;
mod output;
mod plan;
mod pool;
mod redeem_batch;
mod redemption;
mod serve;
mod simulate;
mod stop;
mod view;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use self::stop::Stop;

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
    /// Show the whole thing on one machine: Postgres, a provider, the server, batches, a report.
    Demo(demo::DemoArgs),
    /// Serve the provider's contract with cards, a ledger and faults of its own, to try things on.
    SimulateProvider(crate::simulator::SimulatorArgs),
    /// Pools: sets of interchangeable accounts of one provider.
    #[command(subcommand)]
    Pool(pool::PoolCommand),
    /// Plans: what accounts are being filled for.
    #[command(subcommand)]
    Plan(plan::PlanCommand),
    /// Accounts: what cards are redeemed into.
    #[command(subcommand)]
    Account(account::AccountCommand),
    /// Redeem the cards of a file; run it again with the same --batch-id to go on with the rest.
    RedeemBatch(redeem_batch::RedeemBatchArgs),
    /// Redemptions: list them, look at one, close one that nothing else can.
    #[command(subcommand)]
    Redemption(redemption::RedemptionCommand),
}

/// Runs a command to its end. Its error, if any, is printed once.
pub fn run_to_exit(cli: Cli) -> ExitCode {
    let done = runtime().and_then(|runtime| runtime.block_on(run(cli)));
    match done {
        Ok(code) => code,
        // `holdfast … | head` has got what it wanted.
        Err(error) if error.is::<output::Closed>() => ExitCode::SUCCESS,
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
        .context("the threads that do the work cannot be started")
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let logs = |command: &Command| {
        matches!(command, Command::Serve(_) | Command::SimulateProvider(_) | Command::Migrate(_))
    };
    if logs(&cli.command) {
        crate::telemetry::init_logs(&cli.log)?;
    }
    let stop = || Stop::listen(cli.while_stdin_is_open);
    match cli.command {
        Command::Serve(args) => Box::pin(serve::run(*args, stop()?)).await.map(done),
        Command::Migrate(args) => Box::pin(migrate::run(args)).await.map(done),
        Command::Demo(args) => Box::pin(demo::run(args)).await,
        Command::SimulateProvider(args) => Box::pin(simulate::run(args, stop()?)).await.map(done),
        Command::Pool(command) => Box::pin(pool::run(command)).await.map(done),
        Command::Plan(command) => Box::pin(plan::run(command)).await.map(done),
        Command::Account(command) => Box::pin(account::run(command)).await.map(done),
        Command::RedeemBatch(args) => Box::pin(redeem_batch::run(args)).await,
        Command::Redemption(command) => Box::pin(redemption::run(command)).await,
    }
}

fn done((): ()) -> ExitCode {
    ExitCode::SUCCESS
}

/// How flags are read.
mod parse {
    use time::{OffsetDateTime, format_description::well_known::Rfc3339};

    use crate::domain::{
        id::{AccountId, BatchId, Holder, PlanId, PoolId, RedemptionId},
        money::Currency,
    };

    macro_rules! by_rule {
        ($($name:ident => $type:ty),* $(,)?) => {
            $(
                pub(super) fn $name(text: &str) -> Result<$type, crate::domain::id::InvalidId> {
                    <$type>::parse(text)
                }
            )*
        };
    }

    by_rule! {
        pool => PoolId, plan => PlanId, account => AccountId, batch => BatchId, holder => Holder,
        redemption => RedemptionId,
    }

    /// Reads a time: RFC 3339, or a date, whose first moment in UTC it then is.
    pub(super) fn time(text: &str) -> Result<OffsetDateTime, &'static str> {
        let date = format!("{text}T00:00:00Z");
        let text = if text.contains('T') { text } else { &date };
        OffsetDateTime::parse(text, &Rfc3339).map_err(
            |_| "must be a date such as 2026-11-24, or a time such as 2026-11-24T06:00:00Z",
        )
    }

    /// Reads a currency code.
    pub(super) fn currency(text: &str) -> Result<Currency, &'static str> {
        Currency::parse(text).ok_or("must be three upper-case letters (ISO 4217), such as EUR")
    }

    /// Reads an amount in minor units, more than 0.
    pub(super) fn amount(text: &str) -> Result<i64, String> {
        let max = crate::domain::money::MAX_AMOUNT_MINOR;
        text.parse()
            .ok()
            .filter(|amount| (1..=max).contains(amount))
            .ok_or_else(|| format!("must be a whole number of minor units, 1 to {max}"))
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, CommandFactory as _};

    use super::*;

    #[test]
    fn the_commands_fit_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_of_serve_has_a_variable() {
        let serve = crate::config::ServeArgs::augment_args(clap::Command::new("serve"));
        for flag in serve.get_arguments() {
            let variable = flag.get_env().map(|name| name.to_string_lossy().into_owned());
            let name = flag.get_long().unwrap_or_default().replace('-', "_").to_uppercase();
            assert_eq!(variable, Some(format!("HOLDFAST_{name}")));
        }
    }

    #[test]
    fn every_flag_of_the_simulator_has_a_variable() {
        let simulator = crate::simulator::SimulatorArgs::augment_args(clap::Command::new("s"));
        for flag in simulator.get_arguments() {
            let variable = flag.get_env().map(|name| name.to_string_lossy().into_owned());
            let name = flag.get_long().unwrap_or_default().replace('-', "_").to_uppercase();
            assert_eq!(variable, Some(format!("HOLDFAST_SIMULATOR_{name}")));
        }
    }

    #[test]
    fn commands_are_read_as_they_are_documented() {
        for line in [
            "serve",
            "serve --listen 127.0.0.1:0 --data-dir d --provider-timeout 3s --log debug",
            "migrate --database-url postgres://localhost/x",
            "demo",
            "demo --stay --accounts a.csv --cards c.csv",
            "simulate-provider --listen 127.0.0.1:0 --ledger l.jsonl --fault-busy 5",
            "pool create p --currency EUR",
            "pool create p --currency EUR --default-lease 60s --min-lease 1s --max-lease 10m --amount-mismatch needs-review",
            "pool list --format json",
            "pool pause p",
            "pool resume p --server http://127.0.0.1:1",
            "plan create s --pool p --target 50000",
            "plan list --pool p",
            "account import f.csv --pool p",
            "account list --pool p --status waiting --login-status active --plan s",
            "account show a --pool p",
            "redeem-batch f.csv --pool p --batch-id b",
            "redeem-batch f.csv --pool p --batch-id b --holder h --max-in-flight 8 --item-timeout 30s --plan s --format json --output o",
            "redemption list --pool p --state in-doubt --state needs-review --batch-id b --account a",
            "redemption list --pool p --state in-doubt,needs-review",
            "redemption list --state in-doubt",
            "redemption audit --from 2026-11-24 --to 2026-11-25",
            "redemption audit --from 2026-11-24T06:00:00+01:00 --to 2026-11-25 --pool p --pool q --provider-url http://127.0.0.1:1 --provider-timeout 3s --format json",
            "redemption audit --from 2026-11-24 --to 2026-11-25 --ledger l.jsonl",
            "redemption show 01890a5d-ac96-774b-bcce-b302099a8057 --pool p",
            "redemption resolve 01890a5d-ac96-774b-bcce-b302099a8057 --pool p --outcome succeeded --amount-minor 5 --provider-ref r --reason seen --evidence ticket --by me",
            "redemption resolve 01890a5d-ac96-774b-bcce-b302099a8057 --pool p --outcome failed --code-spent --reason seen --evidence ticket --by me",
        ] {
            let words = ["holdfast"].into_iter().chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_ok(), "{line}");
        }
    }

    #[test]
    fn arguments_that_break_a_rule_are_refused_before_anything_is_sent() {
        for line in [
            "pool create p",
            "pool create p/q --currency EUR",
            "pool create p --currency eur",
            "plan create s --pool p --target 0",
            "plan create s --pool p --target -5",
            "redeem-batch f.csv --pool p --batch-id a:b",
            "redeem-batch f.csv --pool p --batch-id b --max-in-flight 1025",
            "redemption show x --pool p",
            "redemption resolve 01890a5d-ac96-774b-bcce-b302099a8057 --pool p --outcome succeeded --reason seen --evidence ticket --by me",
            "redemption resolve 01890a5d-ac96-774b-bcce-b302099a8057 --pool p --outcome failed --reason seen --by me",
            "redemption audit --from 2026-11-24",
            "redemption audit --from yesterday --to 2026-11-25",
            "redemption audit --from 2026-11-31 --to 2026-12-01",
            "redemption audit --from 2026-11-24T06:00:00 --to 2026-11-25",
            "redemption audit --from 2026-11-24 --to 2026-11-25 --pool p/q",
        ] {
            let words = ["holdfast"].into_iter().chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_err(), "{line}");
        }
    }
}
