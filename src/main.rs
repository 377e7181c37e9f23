//! The program: reads its arguments, runs one command, answers with an exit code.

use std::{env, process::ExitCode};

use holdfast::cli;
use tikv_jemallocator::Jemalloc;
use zeroizing_alloc::ZeroAlloc;

/// Wipes all memory that is freed: codes and keys pass through the buffers of many libraries. jemalloc gives memory back
/// that is not needed any more, seconds after it was: what an attack took is not kept (ADR 0059).
#[global_allocator]
static ALLOCATOR: ZeroAlloc<Jemalloc> = ZeroAlloc(Jemalloc);

fn main() -> ExitCode {
    cli::run_to_exit(env::args_os())
}
