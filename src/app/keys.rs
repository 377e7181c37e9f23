//! Secret keys, as commands see them: what is made with which, and changing to another.

use std::{path::Path, time::Duration};

use super::access;
use crate::{
    domain::{
        database::Address,
        secret_key::{KeyId, StoredKey},
    },
    secret::SecretKeys,
    service::rotation::{self, Order, Progress, Rotated},
    store::{Store, keys::KeyUse},
};

/// How many connections a command needs.
const CONNECTIONS: u32 = 2;

/// How much is made with each key that the database knows.
pub async fn uses(address: &Address) -> anyhow::Result<Vec<(StoredKey, KeyUse)>> {
    let store = Store::open(address, CONNECTIONS)?;
    let uses = rotation::uses(&store).await;
    store.close().await;
    uses
}

/// The keys that nothing needs any more: no file has to have them.
pub fn removable(stored: &[StoredKey]) -> Vec<KeyId> {
    rotation::removable(stored)
}

/// Makes the first key of a file the current one, and encrypts with it all that is stored. The audit trail has the reason.
pub async fn rotate(
    address: &Address,
    file: &Path,
    patience: Duration,
    reason: &str,
    told: &mut (dyn FnMut(Progress) + Send),
) -> anyhow::Result<Rotated> {
    let secret = SecretKeys::from_file(file)?;
    let store = Store::open(address, CONNECTIONS)?;
    let order = Order { by: access::at_the_database(), reason, patience };
    let rotated = rotation::rotate(&store, &secret, &order, told).await;
    store.close().await;
    rotated
}
