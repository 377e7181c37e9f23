//! The program: reads its arguments, runs one command, answers with an exit code.

use std::process::ExitCode;

use clap::Parser as _;
use holdfast::cli;
use mimalloc::MiMalloc;

/// Tasks end on other threads than they began on, which the C library's allocator pays for: see the record
/// of 2026-11-25 about calls that wait.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let arguments = cli::Cli::parse();
    cli::run_to_exit(arguments)
}
