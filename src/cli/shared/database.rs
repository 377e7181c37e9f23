//! The database of commands that talk to it themselves.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use secrecy::SecretString;

use crate::{
    config::{self, database_url},
    domain::database::{Address, SqlName},
};

/// Which database it is about.
#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct DatabaseArgs {
    /// Postgres to use: postgres://user:password@host/database.
    #[arg(long, env = "HOLDFAST_DATABASE_URL", hide_env_values = true)]
    database_url: Option<SecretString>,

    /// A file that holds the database URL.
    #[arg(long, env = "HOLDFAST_DATABASE_URL_FILE", conflicts_with = "database_url")]
    database_url_file: Option<PathBuf>,

    /// Where in it, and by which password.
    #[command(flatten)]
    within: config::WithinDatabase,
}

impl DatabaseArgs {
    /// The database, where one is given.
    pub(in crate::cli) fn given(&self) -> anyhow::Result<Option<Address>> {
        let url = database_url(self.database_url.as_ref(), self.database_url_file.as_deref())?;
        Ok(url.map(|url| self.within.at(url)))
    }

    /// The database.
    pub(in crate::cli) fn address(&self) -> anyhow::Result<Address> {
        self.given()?.context("no database is given: set HOLDFAST_DATABASE_URL")
    }

    /// The schema of the tables, where one is given.
    pub(in crate::cli) fn schema(&self) -> Option<&SqlName> {
        self.within.database_schema.as_ref()
    }

    /// The database for migrations: the one with a URL of its own, else this one.
    pub(in crate::cli) fn for_migrations(
        &self,
        migrations: &config::MigrationArgs,
    ) -> anyhow::Result<Option<Address>> {
        match migrations.address(&self.within)? {
            Some(address) => Ok(Some(address)),
            None => self.given(),
        }
    }
}
