//! The schema of a database: brought up to date, verified, or printed for somebody else to do so.

use anyhow::Context as _;

use crate::{
    config::ServeArgs,
    domain::database::{Address, SqlName},
    store::{
        Store,
        pg::{
            schema::{self, whole_script},
            script,
        },
    },
};

/// How many connections a command needs.
const CONNECTIONS: u32 = 2;

/// Brings the schema up to date, where the server is to, and verifies it; and reads what time it was.
pub(super) async fn prepare(args: &ServeArgs, store: &Store) -> anyhow::Result<()> {
    if !args.schema.no_migrate {
        let done = match args.migration_address()? {
            Some(address) => migrate(&address).await,
            None => store.migrate().await.map_err(Into::into),
        };
        done.context("the database cannot be prepared")?;
    }
    store.check_schema().await.context("the database cannot be used")?;
    store.read_clock().await.context("the database cannot be used")
}

/// Brings a database's schema up to date.
pub async fn migrate(address: &Address) -> anyhow::Result<()> {
    let store = Store::open(address, CONNECTIONS)?;
    let done = store.migrate().await;
    store.close().await;
    Ok(done?)
}

/// The SQL that brings a schema up to date, or nothing where it is. Without a database, all of it, for an empty one.
pub async fn printed(
    address: Option<&Address>,
    schema: Option<&SqlName>,
) -> anyhow::Result<Option<String>> {
    let Some(address) = address else { return Ok(Some(whole_script(schema))) };
    let store = Store::open(address, CONNECTIONS)?;
    let script = store.script().await;
    store.close().await;
    Ok(script?)
}

/// The SQL that gives a role what serving needs. The database, where one is given, says in which table migrations were
/// noted.
pub async fn grants(
    address: Option<&Address>,
    role: &SqlName,
    schema: Option<&SqlName>,
    behind_a_pooler: bool,
) -> anyhow::Result<String> {
    let notes = match address {
        Some(address) => {
            let store = Store::open(address, CONNECTIONS)?;
            let notes = store.notes().await;
            store.close().await;
            notes?
        }
        None => schema::NOTES.to_owned(),
    };
    Ok(script::grants(role, schema, &notes, behind_a_pooler))
}
