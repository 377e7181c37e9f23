//! The services for people: what they keep, read, and resolve.

pub mod accounts;
pub mod audit_events;
pub mod plans;
mod pools;
pub mod providers;
pub mod redemptions;
pub mod tokens;

/// How often a change of a pool or a plan that others change too is tried.
const MAX_UPDATES: u32 = 5;
