//! Measures Holdfast beside what it replaces, on this machine, in one run: the figures of
//! `docs/performance.md`.
//!
//! Each figure compares two or more peers. They run one after the other, in several rounds, so that what
//! else the machine does slows them all alike. The server is the real program, a process of its own; so is everything
//! that it is compared with. Prints a table, and writes `target/bench/summary.json`, the details and the
//! plots.
//!
//! | file | what |
//! |---|---|
//! | `args` | what is asked for, and how long it may take |
//! | `goals` | the figures and what each is to reach |
//! | `figures/` | one figure, or a few that share their peers, a file |
//! | `attacker/` | attacks, by a process of their own |
//! | `peers/` | what is measured: the server, and what it is compared with |
//! | `load`, `open_loop` | callers: as fast as they are answered, and at a rate |
//! | `counters`, `usage` | what Postgres and the kernel count meanwhile |
//! | `secure` | TLS, tokens and JWTs |
//! | `process`, `postgres`, `ground`, `machine` | what it all stands on |
//! | `report/` | the table, the JSON, the plots |

#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the rules are for the program: a benchmark has statements and servers of its own"
)]

mod args;
mod attacker;
mod counters;
mod figures;
mod goals;
mod ground;
mod load;
mod machine;
mod open_loop;
mod peers;
mod pools;
mod postgres;
mod process;
mod report;
mod secure;
mod stats;
mod usage;

use std::process::ExitCode;

use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};

use self::{
    args::{Args, Command, Figure},
    ground::{Ground, Use},
    machine::Machine,
};

fn main() -> ExitCode {
    let args = Args::parse();
    // Everything is measured on private Postgreses, pgbench's and psql's connections included.
    if let Err(error) = holdfast::embedded::leave_out_pg_variables() {
        report::progress(&format!("error: {error:#}"));
        return ExitCode::FAILURE;
    }
    let mut runtime = match &args.command {
        // One thread: what it takes from the server on the same machine is bounded.
        Some(Command::Attack(_)) => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = runtime.enable_all().build();
    let done = runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(run(args)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::progress(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<()> {
    match &args.command {
        Some(Command::Echo) => peers::echo::serve().await,
        Some(Command::Attack(args)) => attacker::run(args).await,
        None => {
            // What is dropped here is stopped and removed, also when a person has had enough.
            let mut terminated = signal(SignalKind::terminate())?;
            tokio::select! {
                done = Box::pin(measure(&args)) => done,
                _ = tokio::signal::ctrl_c() => anyhow::bail!("stopped"),
                _ = terminated.recv() => anyhow::bail!("stopped"),
            }
        }
    }
}

async fn measure(args: &Args) -> anyhow::Result<()> {
    process::allow_many_files();
    if args.wants_table() {
        let ground = Ground::prepare(args, Use::Runs).await?;
        let machine = Machine::read(&ground).await?;
        report::progress(&machine.to_string());
        let rows = figures::measure(args, &ground).await?;
        report::write(args, &machine, &rows)?;
        ground.stop().await?;
    }
    if args.wants(Figure::Costs) {
        figures::costs::measure(args).await?;
    }
    if args.wants(Figure::Attacks) {
        figures::attacks::measure(args).await?;
    }
    if args.wants(Figure::Bloat) {
        figures::bloat::measure(args).await?;
    }
    Ok(())
}
