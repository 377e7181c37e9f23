//! `holdfast provider`: profiles of providers.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::shared::output::{Sink, note, printable};
use crate::provider::check::check;

/// What to do about providers.
#[derive(Debug, Subcommand)]
pub(super) enum ProviderCommand {
    /// Read a profile, and run its cases. Needs no server.
    Check(CheckArgs),
}

/// Which file to check.
#[derive(Args, Debug)]
pub(super) struct CheckArgs {
    /// The profile.
    file: PathBuf,
}

pub(super) fn run(command: ProviderCommand) -> anyhow::Result<ExitCode> {
    match command {
        ProviderCommand::Check(args) => check_file(&args),
    }
}

/// Prints each fault as `FILE:LINE: …`, as compilers do.
fn check_file(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let name = args.file.display().to_string();
    let name = printable(&name);
    let bytes = std::fs::read(&args.file).with_context(|| format!("{name} cannot be read"))?;
    let text = String::from_utf8(bytes).ok().with_context(|| format!("{name} is not UTF-8"))?;
    let mut out = Sink::stdout();
    match check(&text) {
        Ok(profile) => {
            let cases = profile.case_count();
            out.line(format!(
                "{name}: {} version {} is right, {cases} cases",
                profile.id, profile.version
            ))?;
            out.flush()?;
            Ok(ExitCode::SUCCESS)
        }
        Err(faults) => {
            for fault in &faults {
                out.line(format!("{name}:{}: {}", fault.line, printable(&fault.message)))?;
            }
            out.flush()?;
            note(format!("{} faults", faults.len()));
            Ok(ExitCode::FAILURE)
        }
    }
}
