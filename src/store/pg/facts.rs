//! What the database says of itself, for `holdfast doctor`.

use crate::{
    domain::database::Facts,
    store::{Store, StoreError},
};

/// The settings that are asked for.
const SETTINGS: [&str; 12] = [
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
