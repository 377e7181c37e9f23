//! Peers: Holdfast, and what it is compared with.

pub(crate) mod bare;
pub(crate) mod batch;
pub(crate) mod by_hand;
pub(crate) mod echo;
pub(crate) mod etcd;
pub(crate) mod graphile;
pub(crate) mod holdfast;
pub(crate) mod pgbench;
pub(crate) mod provider;
pub(crate) mod silent;

use std::time::Duration;

use futures_util::future::BoxFuture;

/// A program that is measured, one run at a time.
pub(crate) trait Peer {
    /// What it is, for a reader.
    fn name(&self) -> &str;

    /// Works as fast as it can for a while. Answers with how much it did, by the second.
    fn run_for(&mut self, lasting: Duration) -> BoxFuture<'_, anyhow::Result<f64>>;
}

/// The rounds of a peer.
pub(crate) struct Rounds {
    pub(crate) name: String,
    pub(crate) per_second: Vec<f64>,
}
