//! Which database, where in it, and who brings its schema up to date.

use std::path::PathBuf;

use clap::{Args, builder::BoolishValueParser};
use secrecy::SecretString;

use super::database_url;
use crate::domain::database::{Address, SqlName};

/// Where in a database, and by which password.
#[derive(Args, Clone, Debug, Default)]
pub struct WithinDatabase {
    /// The schema of Holdfast's tables: made by migrations where it is missing. Without one, the first schema of the
    /// connection's search_path.
    #[arg(long, env = "HOLDFAST_DATABASE_SCHEMA")]
    pub database_schema: Option<SqlName>,

    /// A file that holds the database role's password, instead of the URL. It is read for each connection, so a password
    /// that expires can be replaced in it.
    #[arg(long, env = "HOLDFAST_DATABASE_PASSWORD_FILE")]
    pub database_password_file: Option<PathBuf>,
}

impl WithinDatabase {
    /// The database at a URL.
    pub fn at(&self, url: SecretString) -> Address {
        Address {
            url,
            schema: self.database_schema.clone(),
            password_file: self.database_password_file.clone(),
        }
    }
}

/// The database, as somebody who may change its schema.
#[derive(Args, Clone, Debug, Default)]
pub struct MigrationArgs {
    /// Postgres itself, as a role that owns the tables: for migrations alone, where the other URL names a pooler, or a
    /// role that may not apply them.
    #[arg(long, env = "HOLDFAST_MIGRATION_DATABASE_URL", hide_env_values = true)]
    pub migration_database_url: Option<SecretString>,

    /// A file that holds that URL.
    #[arg(
        long,
        env = "HOLDFAST_MIGRATION_DATABASE_URL_FILE",
        conflicts_with = "migration_database_url"
    )]
    pub migration_database_url_file: Option<PathBuf>,
}

impl MigrationArgs {
    /// The database for migrations, where it has a URL of its own. Its password is in that.
    pub fn address(&self, of: &WithinDatabase) -> anyhow::Result<Option<Address>> {
        let file = self.migration_database_url_file.as_deref();
        let url = database_url(self.migration_database_url.as_ref(), file)?;
        let schema = of.database_schema.clone();
        Ok(url.map(|url| Address { url, schema, password_file: None }))
    }
}

/// Who brings the schema up to date.
#[derive(Args, Clone, Debug, Default)]
pub struct SchemaArgs {
    /// Apply no migrations: verify that the schema is as this program needs it, and name what is missing.
    #[arg(long, env = "HOLDFAST_NO_MIGRATE", value_parser = BoolishValueParser::new())]
    pub no_migrate: bool,

    /// Who applies them.
    #[command(flatten)]
    pub migrations: MigrationArgs,
}
