//! `holdfast simulate-provider`: the provider for demonstrations, tests and load.

use super::shared::stop::Stop;
use crate::simulator::{self, SimulatorArgs};

/// Serves until told to stop.
pub(super) async fn run(args: SimulatorArgs, mut stop: Stop) -> anyhow::Result<()> {
    simulator::run(args, async move { stop.asked().await }).await
}
