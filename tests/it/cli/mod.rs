//! The commands of the program, as an operator runs them.

mod audit;
mod batch_edits;
mod batch_files;
mod batch_outcomes;
mod config_file;
mod csv_as_it_is;
mod doctor;
mod lease_commands;
mod plan_commands;
mod program;
mod provider_commands;
mod provider_try;
mod redemption_commands;
mod silent_server;
