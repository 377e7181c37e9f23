//! What the database knows of its tables.

use super::{Store, StoreError};

impl Store {
    /// How large the tables are, in bytes, that have grown to twice what the database knows of, or more;
    /// 0 when none has.
    pub async fn grown_bytes(&self) -> Result<i64, StoreError> {
        Ok(sqlx::query_file_scalar!("src/store/sql/grown_bytes.sql").fetch_one(&self.rest).await?)
    }

    /// Has the database count its tables' rows. Statements are planned anew then, on every connection to it.
    pub async fn analyze(&self) -> Result<(), StoreError> {
        sqlx::query_file!("src/store/sql/analyze.sql").execute(&self.rest).await?;
        Ok(())
    }
}
