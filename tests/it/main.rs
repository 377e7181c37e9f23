//! The tests that go over real connections: one file a concern.

mod cli_program;
mod provider;
mod simulator;
