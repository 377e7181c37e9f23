//! The program: reads its arguments, runs one command, answers with an exit code.

use std::process::ExitCode;

use clap::Parser as _;
use holdfast::cli;

fn main() -> ExitCode {
    let arguments = cli::Cli::parse();
    cli::run_to_exit(arguments)
}
