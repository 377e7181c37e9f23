//! Redemptions: sent, settled, recovered, and closed by people.

mod at_once;
mod awaiting;
mod card;
mod corrected_resolutions;
mod inquiry;
mod inquiry_again;
mod late_credit;
mod poll_hints;
mod recovery;
mod resolving;
pub(crate) mod review;
mod settling;

use holdfast::{
    domain::id::PoolId,
    provider::Provider,
    service::providers::{LimitedProvider, Providers},
    store::Store,
};
use tokio_util::sync::CancellationToken;

/// The built-in provider as services ask it, without a database: no limit needs one.
fn limited(provider: &Provider, pool_id: &PoolId) -> LimitedProvider {
    let nowhere = "postgres://holdfast@127.0.0.1:1/none".to_owned();
    let store = Store::open(&nowhere.into(), 1).unwrap();
    let closing = CancellationToken::new();
    Providers::new(store, provider.clone(), None, closing).built_in(pool_id)
}
