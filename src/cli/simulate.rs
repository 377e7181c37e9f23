//! `holdfast simulate-provider`: the provider for demonstrations, tests and load.

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use super::output::note;
use crate::simulator::{self, SimulatorArgs};

/// Serves until Ctrl-C or SIGTERM.
pub(super) async fn run(args: SimulatorArgs) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be waited for")?;
    note(format_args!(
        "simulating the provider on http://{}, with its ledger in {}",
        args.listen,
        args.ledger.display()
    ));
    simulator::run(args, async move {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
    })
    .await
}
