//! The tests that go over real connections: one file a concern.

mod provider;
mod simulator;
