//! `holdfast migrate`: brings a database's schema up to date.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use secrecy::SecretString;

use super::shared::output::note;
use crate::{app, config::database_url};

/// Which database to bring up to date.
#[derive(Args, Debug)]
pub(super) struct MigrateArgs {
    /// Postgres to use: postgres://user:password@host/database.
    #[arg(long, env = "HOLDFAST_DATABASE_URL", hide_env_values = true)]
    database_url: Option<SecretString>,

    /// A file that holds the database URL.
    #[arg(long, env = "HOLDFAST_DATABASE_URL_FILE", conflicts_with = "database_url")]
    database_url_file: Option<PathBuf>,
}

pub(super) async fn run(args: MigrateArgs) -> anyhow::Result<()> {
    let url = database_url(args.database_url.as_ref(), args.database_url_file.as_deref())?;
    let url = url.context("no database is given: set HOLDFAST_DATABASE_URL")?;
    app::migrate(&url).await?;
    note("the schema is up to date");
    Ok(())
}
