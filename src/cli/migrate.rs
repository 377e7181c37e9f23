//! `holdfast migrate`: brings a database's schema up to date.

use clap::Args;

use super::shared::{database::DatabaseArgs, output::note};
use crate::app;

/// Which database to bring up to date.
#[derive(Args, Debug)]
pub(super) struct MigrateArgs {
    #[command(flatten)]
    database: DatabaseArgs,
}

pub(super) async fn run(args: MigrateArgs) -> anyhow::Result<()> {
    app::migrate(&args.database.url()?).await?;
    note("the schema is up to date");
    Ok(())
}
