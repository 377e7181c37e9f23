//! One Postgres for all tests of a run, and a database of its own for each.

use std::time::Duration;

use holdfast::embedded::{Data, Options, Postgres, leave_out_pg_variables};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::sync::{Mutex, OnceCell};
use uuid::Uuid;

use super::wait::eventually;

/// Postgres's code for "is being accessed by other users".
const OBJECT_IN_USE: &str = "55006";

/// Never dropped, as statics are not. The private Postgres stops and removes its data when this
/// process ends, whatever ends it.
static CLUSTER: OnceCell<Postgres> = OnceCell::const_new();

/// A database that fresh ones are copies of.
pub(crate) struct Template {
    name: &'static str,
    /// Whether it is ready. Copies are made one at a time, under this lock: a template can only be
    /// copied while nobody else is at it.
    is_ready: Mutex<bool>,
}

/// A database that one test has to itself.
#[derive(Debug)]
pub(crate) struct TestDatabase {
    /// Where it is.
    pub(crate) url: String,
    name: String,
}

impl TestDatabase {
    /// Drops it, and cuts every connection to it. Without this it lasts until the end of the run.
    pub(crate) async fn drop_database(self) {
        run(&format!("DROP DATABASE {} WITH (FORCE)", self.name)).await.unwrap();
    }
}

/// The Postgres that all tests share.
pub(crate) async fn shared() -> &'static Postgres {
    let start = async || {
        // Of the shell that runs the tests. All connect to private Postgreses, by URLs that the driver completes from
        // its own environment; so the program starts anew, once, and runs its tests again.
        leave_out_pg_variables()?;
        Postgres::start(Options::new(Data::ThrowAway)).await
    };
    CLUSTER.get_or_try_init(start).await.unwrap()
}

impl Template {
    /// One that is made when it is first needed. Lives in a static, one for each `name`.
    pub(crate) const fn new(name: &'static str) -> Self {
        Self { name, is_ready: Mutex::const_new(false) }
    }

    /// A new database, as `prepare` leaves one: it is called once a run, with the template's URL.
    pub(crate) async fn fresh_database(
        &self,
        prepare: impl AsyncFnOnce(String) -> anyhow::Result<()>,
    ) -> TestDatabase {
        let mut is_ready = self.is_ready.lock().await;
        if !*is_ready {
            self.make(prepare).await;
            *is_ready = true;
        }
        let name = format!("test_{}", Uuid::now_v7().simple());
        self.copy_to(&name).await;
        TestDatabase { url: shared().await.url(&name), name }
    }

    async fn make(&self, prepare: impl AsyncFnOnce(String) -> anyhow::Result<()>) {
        // A test that failed to prepare it may have left half of one.
        run(&format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name)).await.unwrap();
        run(&format!("CREATE DATABASE {}", self.name)).await.unwrap();
        prepare(shared().await.url(self.name)).await.unwrap();
    }

    async fn copy_to(&self, name: &str) {
        // Copying files is quicker than copying through the log of changes.
        let copy = format!("CREATE DATABASE {name} TEMPLATE {} STRATEGY file_copy", self.name);
        let left_alone = "the template to be left alone";
        eventually(Duration::from_secs(10), left_alone, async || match run(&copy).await {
            Ok(()) => Some(()),
            // The connections of `prepare` end a moment after they are dropped.
            Err(error) if is_in_use(&error) => None,
            Err(error) => panic!("{copy}: {error}"),
        })
        .await;
    }
}

fn is_in_use(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.as_deref() == Some(OBJECT_IN_USE)
}

/// Runs a statement that concerns whole databases. The connection is opened for it, because one
/// could not be handed from one test's runtime to another's.
async fn run(sql: &str) -> sqlx::Result<()> {
    let mut connection = PgConnection::connect(&shared().await.url("postgres")).await?;
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await?;
    connection.close().await
}
