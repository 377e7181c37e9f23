//! The background tasks: each runs from the start of a server until it stops.

pub mod connections;
pub mod heartbeat;
pub mod reconcile;
pub mod reversals;
pub mod statistics;
