//! More work than a server gets done, and the bounds on what it keeps for its clients.

mod callers;
mod deleted_pools;
mod departed_callers;
mod floods;
mod half_open;
mod idle_pools;
mod memory_bounds;
mod metrics;
mod open_files;
mod refusals;
mod shares;
