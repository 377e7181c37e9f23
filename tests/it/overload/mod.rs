//! More work than a server gets done, and the bounds on what it keeps for its clients.

mod departed_callers;
mod half_open;
mod memory_bounds;
mod open_files;
mod refusals;
mod shares;
