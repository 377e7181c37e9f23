//! `holdfast migrate` and `holdfast grants`: a database's schema brought up to date, and who may use it.

use clap::Args;

use super::shared::{
    database::DatabaseArgs,
    output::{Sink, note},
};
use crate::{app::schema, config::MigrationArgs, domain::database::SqlName};

/// Which database to bring up to date.
#[derive(Args, Debug)]
pub(super) struct MigrateArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    migrations: MigrationArgs,
    /// Print the SQL of the migrations that are missing, for psql, and change nothing. Without a database: all of them.
    #[arg(long)]
    print: bool,
}

/// Who is to serve.
#[derive(Args, Debug)]
pub(super) struct GrantsArgs {
    /// The role that servers connect as.
    #[arg(long)]
    role: SqlName,
    /// Servers reach Postgres through a pooler: the role gets the settings, too, that a pooler leaves out.
    #[arg(long)]
    pooler: bool,
    #[command(flatten)]
    database: DatabaseArgs,
}

pub(super) async fn run(args: MigrateArgs) -> anyhow::Result<()> {
    let address = args.database.for_migrations(&args.migrations)?;
    if args.print {
        let script = schema::printed(address.as_ref(), args.database.schema()).await?;
        return print(
            script.as_deref().unwrap_or("-- Nothing is missing: the schema is up to date.\n"),
        );
    }
    let address = match address {
        Some(address) => address,
        None => args.database.address()?,
    };
    schema::migrate(&address).await?;
    note("the schema is up to date");
    Ok(())
}

/// Prints the SQL that gives a role what serving needs.
pub(super) async fn grants(args: GrantsArgs) -> anyhow::Result<()> {
    let database = args.database.given()?;
    let schema = args.database.schema();
    print(&schema::grants(database.as_ref(), &args.role, schema, args.pooler).await?)
}

fn print(sql: &str) -> anyhow::Result<()> {
    let mut out = Sink::stdout();
    out.text(sql)?;
    out.flush()
}
