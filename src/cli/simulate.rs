//! `holdfast simulate-provider`: the provider for demonstrations, tests and load.

use holdfast_simulator::{Simulator, SimulatorArgs};

use super::shared::stop::Stop;
use crate::listener::address::warn_when_reachable;

/// What anyone can do who reaches its address: nobody is asked who they are.
const ANYONE_CAN: &str = "redeem and cancel cards, read the ledger, and change which faults it has";

/// Serves until told to stop.
pub(super) async fn run(args: Box<SimulatorArgs>, mut stop: Stop) -> anyhow::Result<()> {
    let simulator = Simulator::start(&args).await?;
    let addr = simulator.addr();
    warn_when_reachable(addr, "the simulated provider", "HOLDFAST_SIMULATOR_LISTEN", ANYONE_CAN);
    tracing::info!(address = %addr, ledger = %args.ledger.display(), "simulating the provider");
    simulator.run_until(async move { stop.asked().await }).await
}
