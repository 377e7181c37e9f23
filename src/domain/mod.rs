//! What Holdfast is about, as plain values and functions: no async, no SQL, no gRPC, no HTTP, no
//! clock. Everything else depends on this, and this on nothing else of ours.

pub mod access;
pub mod account;
pub mod audit;
pub mod choice;
pub mod credentials;
pub mod database;
pub mod failure;
pub mod hold;
pub mod http_url;
pub mod id;
pub mod lease;
pub mod money;
pub mod outcomes;
pub mod page;
pub mod plan;
pub mod pool;
pub mod principal;
pub mod provider;
pub mod redemption;
pub mod secret_key;
pub mod selector;
pub mod subscription;
pub mod text;
