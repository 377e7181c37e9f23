//! `holdfast simulate-provider`: the provider for demonstrations, tests and load.

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::simulator::{self, SimulatorArgs};

/// Serves until Ctrl-C or SIGTERM.
pub(super) async fn run(args: SimulatorArgs) -> anyhow::Result<()> {
    let listen = |kind| signal(kind).context("signals cannot be waited for");
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    simulator::run(args, async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
    .await
}
