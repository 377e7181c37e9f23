//! Holdfast: locks accounts and redeems card codes into them, exactly once.
//!
//! The modules, in the order of their dependency: each uses only those of the groups above it.
//! `ARCHITECTURE.md` draws one request; `domain::account` is the page to read first.

pub mod domain;

pub mod access;
pub mod admission;
pub mod config;
pub mod core_dumps;
pub mod failpoints;
pub mod secret;
pub mod secret_file;

pub mod embedded;
pub mod provider;
pub mod store;

pub mod service;

pub mod rpc;

pub mod health;
pub mod listener;
pub mod telemetry;

pub mod admin;
pub mod shutdown;
pub mod webhook;

pub mod app;

pub mod cli;

#[cfg(feature = "fuzzing")]
pub mod fuzz;

/// The provider that the tests play against.
pub use holdfast_simulator as simulator;
