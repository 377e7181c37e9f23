//! Holdfast: locks accounts and redeems card codes into them, exactly once.
//!
//! The modules, in the order of their dependency: each uses only those above it.
//! `ARCHITECTURE.md` walks through a request; `domain::account` is the page to read first.

pub mod domain;

pub mod rpc;

pub mod config;

pub mod provider;

pub mod simulator;

pub mod cli;
