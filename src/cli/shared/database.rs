//! The database of commands that talk to it themselves.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use secrecy::SecretString;

use crate::config::database_url;

/// Which database it is about.
#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct DatabaseArgs {
    /// Postgres to use: postgres://user:password@host/database.
    #[arg(long, env = "HOLDFAST_DATABASE_URL", hide_env_values = true)]
    database_url: Option<SecretString>,

    /// A file that holds the database URL.
    #[arg(long, env = "HOLDFAST_DATABASE_URL_FILE", conflicts_with = "database_url")]
    database_url_file: Option<PathBuf>,
}

impl DatabaseArgs {
    /// The database's URL, where one is given.
    pub(in crate::cli) fn given(&self) -> anyhow::Result<Option<SecretString>> {
        database_url(self.database_url.as_ref(), self.database_url_file.as_deref())
    }

    /// The database's URL.
    pub(in crate::cli) fn url(&self) -> anyhow::Result<SecretString> {
        self.given()?.context("no database is given: set HOLDFAST_DATABASE_URL")
    }
}
