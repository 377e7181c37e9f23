//! Table statistics: how many rows the database expects in its tables.

use crate::store::{Store, StoreError};

/// What the database knows of the tables that hot statements are planned for.
#[derive(Clone, Copy, Debug)]
pub struct TableStatistics {
    /// How many pages they had when it last counted their rows.
    pub known_pages: i64,
    /// One of them has grown by a fifth since, or more.
    pub grown: bool,
}

impl Store {
    /// What the database knows of its tables.
    pub async fn table_statistics(&self) -> Result<TableStatistics, StoreError> {
        Ok(sqlx::query_file_as!(TableStatistics, "src/store/sql/pg/grown_tables.sql")
            .fetch_one(&self.rest)
            .await?)
    }

    /// Has the database count its tables' rows. Statements are planned anew then, on every connection to it.
    pub async fn count_rows(&self) -> Result<(), StoreError> {
        sqlx::query_file!("src/store/sql/pg/analyze.sql").execute(&self.rest).await?;
        Ok(())
    }
}
