//! Servers: their beats.

use std::time::Duration;

use uuid::Uuid;

use super::{Store, StoreError, interval};

/// The most servers that are read at once: far more than ever run, and than start within the time that a row is
/// kept.
const MAX_SERVERS: i64 = 10_000;

/// A server, and its beat when it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    /// The server, since it was started.
    pub server_id: Uuid,
    /// Rises while it lives.
    pub beat: i64,
}

impl Store {
    /// Which server this is. A new id at each start.
    pub fn server_id(&self) -> Uuid {
        self.server_id
    }

    /// Tells the other servers that this one lives. May be repeated: it only beats once more.
    pub async fn beat(&self) -> Result<(), StoreError> {
        sqlx::query_file!("src/store/sql/server/beat.sql", self.server_id)
            .execute(&self.db)
            .await?;
        Ok(())
    }

    /// Reads which time was written last, so that a clock that went back since is found.
    pub async fn read_clock(&self) -> Result<(), StoreError> {
        let newest = sqlx::query_file_scalar!("src/store/sql/server/newest_beat.sql");
        if let Some(written_ms) = newest.fetch_one(&self.db).await? {
            self.db.note_time(written_ms);
        }
        Ok(())
    }

    /// The beats of all servers.
    pub async fn list_beats(&self) -> Result<Vec<Beat>, StoreError> {
        Ok(sqlx::query_file_as!(Beat, "src/store/sql/server/list_beats.sql", MAX_SERVERS)
            .fetch_all(&self.db)
            .await?)
    }

    /// Removes servers that have not beaten for this time, and answers how many. May be repeated: what was removed
    /// is not there any more.
    pub async fn remove_servers(&self, silent_for: Duration) -> Result<i64, StoreError> {
        Ok(sqlx::query_file_scalar!(
            "src/store/sql/server/remove_servers.sql",
            interval(silent_for),
            MAX_SERVERS
        )
        .fetch_one(&self.db)
        .await?)
    }

    /// Removes this server, which has nothing in progress any more. May be repeated, as above.
    pub async fn remove_this_server(&self) -> Result<(), StoreError> {
        let removed = sqlx::query_file!("src/store/sql/server/remove_server.sql", self.server_id);
        removed.execute(&self.db).await?;
        Ok(())
    }
}
