//! The program: reads its arguments, runs one command, answers with an exit code.

use std::{alloc::System, process::ExitCode};

use clap::Parser as _;
use holdfast::cli;
use zeroizing_alloc::ZeroAlloc;

/// Wipes all memory that is freed: codes and keys pass through the buffers of many libraries.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> ExitCode {
    let arguments = cli::Cli::parse();
    cli::run_to_exit(arguments)
}
