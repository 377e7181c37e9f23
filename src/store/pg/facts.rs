//! What the database says of itself, for `holdfast doctor`.

use crate::{
    domain::database::{Facts, SETTINGS},
    store::{Store, StoreError},
};

/// What is asked for beside the settings of a connection.
const OF_THE_SERVER: [&str; 9] = [
    "fsync",
    "full_page_writes",
    "max_connections",
    "server_encoding",
    "server_version",
    "server_version_num",
    "superuser_reserved_connections",
    "synchronous_commit",
    "synchronous_standby_names",
];

impl Store {
    /// Asks the database about itself.
    pub async fn facts(&self) -> Result<Facts, StoreError> {
        let own = SETTINGS.iter().map(|(name, _)| *name);
        let names: Vec<_> = OF_THE_SERVER.into_iter().chain(own).map(str::to_owned).collect();
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
