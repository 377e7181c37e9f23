//! What the database says of itself, for `holdfast doctor`.

use std::collections::HashMap;

use crate::store::{Store, StoreError};

/// The settings that are asked for.
const SETTINGS: [&str; 13] = [
    "default_transaction_read_only",
    "fsync",
    "full_page_writes",
    "lock_timeout",
    "max_connections",
    "server_encoding",
    "server_version",
    "server_version_num",
    "statement_timeout",
    "superuser_reserved_connections",
    "synchronous_commit",
    "synchronous_standby_names",
    "TimeZone",
];

/// What a connection asks for itself: see [`Store::open`].
const OWN: [(&str, &str); 3] =
    [("statement_timeout", "15000"), ("lock_timeout", "2000"), ("TimeZone", "UTC")];

/// What a database is like, as a connection of this program sees it.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Settings, by name. Durations are in milliseconds.
    pub settings: HashMap<String, String>,
    /// Connections that the role may have; less than 0 for any number.
    pub role_connections: i64,
    /// Standbys that are connected, and for which a commit may wait.
    pub synchronous_standbys: i64,
    /// Standbys of which the role may not see the kind.
    pub unknown_standbys: i64,
    /// Connections that there are.
    pub connections: i64,
    /// The time there, in milliseconds since 1970.
    pub now_ms: i64,
}

impl Facts {
    /// A setting; empty where it is not known.
    pub fn setting(&self, name: &str) -> &str {
        self.settings.get(name).map_or("", String::as_str)
    }

    /// A setting that is a number; 0 where it is not known.
    pub fn number(&self, name: &str) -> i64 {
        self.setting(name).parse().unwrap_or(0)
    }

    /// The settings that a connection asked for, and has not got: what stands between left them out.
    pub fn not_taken(&self) -> Vec<&'static str> {
        OWN.iter()
            .filter(|(name, asked)| self.setting(name) != *asked)
            .map(|(name, _)| *name)
            .collect()
    }
}

impl Store {
    /// Asks the database about itself.
    pub async fn facts(&self) -> Result<Facts, StoreError> {
        let names = SETTINGS.map(str::to_owned);
        let settings = sqlx::query_file!("src/store/sql/pg/list_settings.sql", &names)
            .fetch_all(&self.db)
            .await?;
        let facts = sqlx::query_file!("src/store/sql/pg/facts.sql").fetch_one(&self.db).await?;
        Ok(Facts {
            settings: settings.into_iter().map(|row| (row.name, row.setting)).collect(),
            role_connections: facts.role_connections.into(),
            synchronous_standbys: facts.synchronous_standbys,
            unknown_standbys: facts.unknown_standbys,
            connections: facts.connections,
            now_ms: facts.now_ms,
        })
    }
}
