//! The services: what Holdfast does, one use case a file, named after its RPC. Decides; the store and the provider
//! act.

pub mod accounts;
pub mod acquire;
pub mod batch;
mod clock;
mod days;
pub mod error;
mod expiry;
pub mod heartbeat;
pub mod inquiry;
pub mod plans;
mod poll;
pub mod pools;
pub mod reconcile;
pub mod redeem;
pub mod redemptions;
pub mod release;
pub mod settle;
pub mod statistics;
pub mod sweep;

pub use error::Error;
