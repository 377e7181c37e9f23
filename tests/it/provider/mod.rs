//! The provider: the client of its API, and the simulator.

pub(crate) mod client;
mod fakes;
mod simulator;
mod tls;
mod unsolicited;
