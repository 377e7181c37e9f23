//! The tests that need a Postgres, real HTTP or a process of their own. One program, so that it is
//! linked once and all tests share one Postgres; one folder a subject, one file a concern.

#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the rules are for the program: tests look into the database, and play servers and clients"
)]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

mod access;
mod accounts;
mod acquire;
mod batch;
mod cli;
mod database;
mod faults;
mod fuzz;
mod house;
mod keys;
mod overload;
mod plans;
mod provider;
mod providers;
mod redeem;
mod rpc;
mod server;
mod subscriptions;
mod watch;
