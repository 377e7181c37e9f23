//! The tests that need a Postgres, real HTTP or a process of their own. One program, so that it is
//! linked once and all tests share one Postgres; one file a concern.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

mod account_keys;
mod audit;
mod batch;
mod batch_again;
mod batch_files;
mod batch_outcomes;
mod batch_survives;
mod book;
mod choice;
mod cli_program;
mod closing;
mod contention;
mod controls;
mod crash_table;
mod database;
mod database_failover;
mod database_replies;
mod departed;
mod embedded;
mod explain;
mod fairness;
mod filling;
mod holds;
mod imports;
mod input;
mod input_raw;
mod inquiry;
mod inquiry_again;
mod ladder;
mod late_credit;
mod layering;
mod leases;
mod looks;
mod model;
mod overload;
mod plan_changes;
mod plan_checks;
mod plan_commands;
mod plan_deletion;
mod plans;
mod poll_hints;
mod provider;
mod proxy;
mod redeem;
mod redemption_commands;
mod redemptions;
mod reservation;
mod resolve;
mod resources;
mod rights;
mod schemas;
mod serving;
mod simulator;
mod sql_rules;
mod state_machine;
mod stopping;
mod surroundings;
mod unasked;
mod walks;
