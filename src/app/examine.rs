//! What `holdfast doctor` asks a database and the files beside it. Nothing is changed.

use std::{
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    domain::{
        database::{Address, Facts},
        secret_key::StoredKey,
    },
    secret::{self, SecretKeys},
    store::Store,
};

/// The name of the secret keys' file in the data directory of a private Postgres.
pub const KEY_FILE: &str = secret::FILE_NAME;

/// How many connections are enough.
const CONNECTIONS: u32 = 2;

/// What was found of a database. What could not be found is told in words.
#[derive(Debug)]
pub struct Examined {
    /// Its settings and its state.
    pub facts: Facts,
    /// By how many milliseconds its clock is before this machine's, at the least: what the answer took is not counted.
    pub clock_ms: i64,
    /// The migrations that it lacks.
    pub missing_migrations: Result<Vec<String>, String>,
    /// Whether the role may do what serving needs.
    pub rights: Result<(), String>,
    /// The secret keys that it knows.
    pub keys: Result<Vec<StoredKey>, String>,
}

/// Asks a database all that is wanted of it. The error is why it does not answer.
pub async fn database(address: &Address) -> anyhow::Result<Examined> {
    let store = Store::open(address, CONNECTIONS)?;
    let examined = examine(&store).await;
    store.close().await;
    examined
}

async fn examine(store: &Store) -> anyhow::Result<Examined> {
    // Connects, so that what is measured next is one answer.
    store.facts().await?;
    let before = now_ms();
    let facts = store.facts().await?;
    let clock_ms = difference(facts.now_ms, before, now_ms());
    let missing_migrations = store.missing_migrations().await.map_err(|error| error.to_string());
    let has_tables = missing_migrations.as_ref().is_ok_and(Vec::is_empty);
    let (rights, keys) = if has_tables {
        let rights = store.check_rights().await.map_err(|error| error.to_string());
        (rights, store.list_keys().await.map_err(|error| error.to_string()))
    } else {
        let why = || "not known until the schema is up to date".to_owned();
        (Err(why()), Err(why()))
    };
    Ok(Examined { facts, clock_ms, missing_migrations, rights, keys })
}

/// By how much a time that was told between two of our own is outside of them.
fn difference(told: i64, before: i64, after: i64) -> i64 {
    if told < before { told - before } else { (told - after).max(0) }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Reads a file of secret keys, and sees whether it has those that a database knows. Answers how many it has.
pub fn key_file(file: &Path, stored: Option<&[StoredKey]>) -> anyhow::Result<usize> {
    let keys = SecretKeys::from_file(file)?;
    if let Some(stored) = stored.filter(|stored| !stored.is_empty()) {
        keys.follow(stored)?;
    }
    Ok(keys.now().ids().len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_differ_by_what_the_way_there_does_not_explain() {
        assert_eq!(difference(150, 100, 200), 0);
        assert_eq!(difference(90, 100, 200), -10);
        assert_eq!(difference(230, 100, 200), 30);
    }
}
