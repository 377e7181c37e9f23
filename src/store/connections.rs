//! The connections to one server of the database, as long as it is the one that takes writes.
//!
//! sqlx has a pool of its own, which asks each connection whether it lives before a statement and after it:
//! three round trips for one. Here a statement finds out by itself, and whoever runs it runs it again.

use std::{io, time::Duration};

use deadpool::managed::{
    Manager, Metrics, Object, Pool, PoolError, QueueMode, RecycleError, RecycleResult,
};
use sqlx::{Connection as _, PgConnection, postgres::PgConnectOptions};
use tokio::{
    runtime::Handle,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::error::{Fault, fault, is_read_only, read_only};

/// How long a caller waits for a connection before the database counts as out of reach.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(3);
/// The pause before a server that refused is connected to again: the address may lead elsewhere by then.
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);
/// A connection that nobody used for so long is asked whether it lives: what stands between may have
/// forgotten it.
const UNUSED: Duration = Duration::from_secs(10);
/// A connection that is older is made anew, so that what the server keeps for it does not grow.
const MAX_AGE: Duration = Duration::from_secs(30 * 60);
/// How long a connection whose statement nobody waits for any more may take to be usable again.
const RETURN_LIMIT: Duration = Duration::from_secs(1);
/// How often it is looked whether the last statement has ended, when connections are closed.
const CLOSE_POLL: Duration = Duration::from_millis(5);

/// At most so many connections. Cheap to clone.
#[derive(Clone)]
pub(super) struct Connections(Pool<Server>);

struct Server {
    options: PgConnectOptions,
}

impl Manager for Server {
    type Type = PgConnection;
    type Error = sqlx::Error;

    async fn create(&self) -> Result<PgConnection, sqlx::Error> {
        connect_patiently(&self.options).await
    }

    async fn recycle(
        &self,
        connection: &mut PgConnection,
        metrics: &Metrics,
    ) -> RecycleResult<sqlx::Error> {
        if metrics.age() > MAX_AGE {
            return Err(RecycleError::message("it is old"));
        }
        if metrics.last_used() > UNUSED {
            connection.ping().await?;
        }
        Ok(())
    }
}

/// Connects to a server that takes writes.
pub(super) async fn connect(options: &PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
    let mut connection = PgConnection::connect_with(options).await?;
    check_writable(&mut connection).await?;
    Ok(connection)
}

/// The same, again while the server may be there in a moment.
pub(super) async fn connect_patiently(
    options: &PgConnectOptions,
) -> Result<PgConnection, sqlx::Error> {
    let give_up_at = Instant::now() + CONNECTION_TIMEOUT;
    let mut why = sqlx::Error::PoolTimedOut;
    loop {
        match timeout_at(give_up_at, connect(options)).await {
            Ok(Err(error)) if comes_back(&error) => why = error,
            Ok(connected) => return connected,
            Err(_) => return Err(why),
        }
        if Instant::now() + RECONNECT_PAUSE > give_up_at {
            return Err(why);
        }
        sleep(RECONNECT_PAUSE).await;
    }
}

/// Refuses a server that takes no writes: a standby, or a primary that was demoted.
pub(super) async fn check_writable(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let writable = sqlx::query_file_scalar!("src/store/sql/ping.sql").fetch_one(connection).await?;
    if writable { Ok(()) } else { Err(read_only()) }
}

/// Whether a server that cannot be connected to may be there in a moment.
fn comes_back(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(error) => error.kind() == io::ErrorKind::ConnectionRefused,
        // Starting, or stopping.
        sqlx::Error::Database(error) => {
            error.code().is_some_and(|code| ["57P01", "57P02", "57P03"].contains(&&*code))
        }
        error => is_read_only(error),
    }
}

impl Connections {
    /// At most `size`; made when they are first used.
    pub(super) fn new(options: PgConnectOptions, size: u32) -> Self {
        let pool = Pool::builder(Server { options })
            .max_size(usize::try_from(size).unwrap_or(usize::MAX))
            // Those that were used last have their plans, and the server's memory of them is warm.
            .queue_mode(QueueMode::Lifo)
            .build();
        // It refuses timeouts without a runtime to keep them, and there are none.
        Self(pool.expect("a pool without timeouts"))
    }

    /// A connection for one statement.
    pub(super) async fn get(&self) -> Result<Lent, sqlx::Error> {
        // A little longer than connecting may take, which then says why it cannot.
        match timeout(CONNECTION_TIMEOUT + RECONNECT_PAUSE, self.0.get()).await {
            Ok(Ok(connection)) => Ok(Lent { connection: Some(connection), pool: self.clone() }),
            Ok(Err(PoolError::Backend(error))) => Err(error),
            Ok(Err(PoolError::Closed)) => Err(sqlx::Error::PoolClosed),
            Ok(Err(_)) | Err(_) => Err(sqlx::Error::PoolTimedOut),
        }
    }

    /// Closes them, each after the statement that runs on it.
    pub(super) async fn close(&self) {
        let idle = self.0.retain(|_, _| false).removed;
        self.0.close();
        for connection in idle {
            let _ = connection.close().await;
        }
        while self.0.status().size > 0 {
            sleep(CLOSE_POLL).await;
        }
    }
}

/// A connection while a statement runs on it.
pub(super) struct Lent {
    connection: Option<Object<Server>>,
    pool: Connections,
}

impl Lent {
    /// The connection.
    pub(super) fn connection(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        self.connection.as_deref_mut().ok_or(sqlx::Error::WorkerCrashed)
    }

    /// Its statement has ended so. When it is the connection that failed, those that nobody uses are given
    /// up too: most likely the server went away with all of them.
    pub(super) fn give_back(mut self, error: Option<&sqlx::Error>) {
        let Some(connection) = self.connection.take() else { return };
        let is_usable = error.is_none_or(|error| {
            matches!(error, sqlx::Error::Database(_)) && fault(error) != Fault::Unavailable
        });
        if is_usable {
            drop(connection);
        } else {
            drop(Object::take(connection));
            drop(self.pool.0.retain(|_, _| false));
        }
    }
}

impl Drop for Lent {
    /// Nobody waits for its statement any more. It has to end before the connection can be used again; one
    /// that does not end soon, because the server is gone, is given up.
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        let Ok(runtime) = Handle::try_current() else {
            drop(Object::take(connection));
            return;
        };
        runtime.spawn(async move {
            if !matches!(timeout(RETURN_LIMIT, connection.ping()).await, Ok(Ok(()))) {
                drop(Object::take(connection));
            }
        });
    }
}
