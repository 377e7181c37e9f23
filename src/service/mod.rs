//! The services: what Holdfast does, one use case a file, named after its RPC. Decides; the store and the provider
//! act.
//!
//! `acquire`, `release`, `redeem`, `card`, `batch`, `awaiting` and `watching` are what callers do, `admin` and `reverse` are what people do, `webhooks`
//! what providers do, `subscriptions` sends outcomes, and `background` what the server does by itself. The other files are shared by these.

pub mod account_values;
pub mod acquire;
pub mod admin;
pub mod awaiting;
pub mod background;
pub mod batch;
pub mod card;
mod clock;
mod days;
pub mod error;
mod expiry;
pub mod keys;
mod poll;
pub mod pools;
pub mod providers;
pub mod redeem;
pub mod release;
mod reopening;
pub mod reverse;
pub mod rotation;
pub mod subscriptions;
pub mod sweep;
pub mod watching;
pub mod webhooks;
mod words;

pub use error::Error;
