//! The connections to one server of the database, as long as it is the one that takes writes.
//!
//! sqlx has a pool of its own, which asks each connection whether it lives before a statement and after it:
//! three round trips for one. Here a statement finds out by itself, and its caller runs it again.

use std::{io, sync::Arc, time::Duration};

use deadpool::managed::{
    Manager, Metrics, Object, Pool, PoolError, QueueMode, RecycleError, RecycleResult,
};
use sqlx::{Connection as _, PgConnection};
use time::OffsetDateTime;
use tokio::{
    runtime::Handle,
    sync::Mutex,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    error::{Fault, fault, is_read_only},
    target::{Opened, Purpose, Target},
};
use crate::admission::FairPermit;

/// How long a caller waits for a connection before the database counts as out of reach.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(3);
/// The pause before a server that refused is connected to again: the address may lead elsewhere by then.
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);
/// A connection that nobody used for this time is asked whether it lives: what stands between may have
/// forgotten it.
const UNUSED: Duration = Duration::from_secs(10);
/// A connection that is older is made anew, so that what the server keeps for it does not grow.
const MAX_AGE: Duration = Duration::from_secs(30 * 60);
/// How long a statement that nobody waits for any more may take to end by itself, before it is cancelled.
const GRACE: Duration = Duration::from_millis(20);
/// How long cancelling it may take, with the connection that it needs.
const CANCEL_LIMIT: Duration = Duration::from_secs(2);
/// How long it may take to end then: longer than Postgres lets any of our statements run.
const END_LIMIT: Duration = Duration::from_secs(20);
/// How long it may take where Postgres could not be asked to cancel it.
const RETURN_LIMIT: Duration = Duration::from_secs(1);
/// How often it is checked whether the last statement has ended, when connections are closed.
const CLOSE_POLL: Duration = Duration::from_millis(5);

/// At most so many connections. Cheap to clone.
#[derive(Clone)]
pub(super) struct Connections {
    pool: Pool<Server>,
    target: Arc<Target>,
    /// Held while a statement is cancelled: one connection more than there may be is enough for that.
    cancelling: Arc<Mutex<()>>,
    /// Cancelled when no answer is to come over these connections any more.
    silent: CancellationToken,
}

struct Server {
    target: Arc<Target>,
}

/// A connection, and the name of what serves it: none behind a pooler, where that is another process each time.
struct Backend {
    connection: PgConnection,
    process: Option<Process>,
}

/// A process of Postgres, and since when it is there.
#[derive(Clone, Copy)]
struct Process {
    pid: i32,
    since: OffsetDateTime,
}

impl Manager for Server {
    type Type = Backend;
    type Error = sqlx::Error;

    async fn create(&self) -> Result<Backend, sqlx::Error> {
        let Opened { mut connection, is_pooled, .. } =
            connect_patiently(&self.target, Purpose::Statements).await?;
        let process = if is_pooled {
            None
        } else {
            let process = sqlx::query_file_as!(Process, "src/store/sql/pg/backend.sql");
            Some(process.fetch_one(&mut connection).await?)
        };
        Ok(Backend { connection, process })
    }

    async fn recycle(
        &self,
        backend: &mut Backend,
        metrics: &Metrics,
    ) -> RecycleResult<sqlx::Error> {
        if metrics.age() > MAX_AGE {
            return Err(RecycleError::message("it is old"));
        }
        if metrics.last_used() > UNUSED {
            backend.connection.ping().await?;
        }
        Ok(())
    }
}

/// Connects to a server that takes writes, again while it may be there in a moment.
pub(super) async fn connect_patiently(
    target: &Target,
    purpose: Purpose,
) -> Result<Opened, sqlx::Error> {
    let deadline = Instant::now() + CONNECTION_TIMEOUT;
    let mut why = sqlx::Error::PoolTimedOut;
    loop {
        match timeout_at(deadline, target.connect(purpose)).await {
            Ok(Err(error)) if comes_back(&error) => why = error,
            Ok(connected) => return connected,
            Err(_) => return Err(why),
        }
        if Instant::now() + RECONNECT_PAUSE > deadline {
            return Err(why);
        }
        sleep(RECONNECT_PAUSE).await;
    }
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
    /// At most `size`; made when they are first used. When `silent` is cancelled nobody waits for what
    /// runs on them.
    pub(super) fn new(target: Arc<Target>, size: u32, silent: CancellationToken) -> Self {
        let pool = Pool::builder(Server { target: Arc::clone(&target) })
            .max_size(usize::try_from(size).unwrap_or(usize::MAX))
            // Those that were used last have their plans, and the server's memory of them is warm.
            .queue_mode(QueueMode::Lifo)
            .build();
        // It refuses timeouts without a runtime to keep them, and there are none.
        let pool = pool.expect("a pool without timeouts");
        Self { pool, target, cancelling: Arc::default(), silent }
    }

    /// A connection for one statement, with what is to be held until it has ended.
    pub(super) async fn get(&self, held: Held) -> Result<Lent, sqlx::Error> {
        // A little longer than connecting may take, which then says why it cannot.
        match timeout(CONNECTION_TIMEOUT + RECONNECT_PAUSE, self.pool.get()).await {
            Ok(Ok(backend)) => Ok(Lent { backend: Some(backend), held, pool: self.clone() }),
            Ok(Err(PoolError::Backend(error))) => Err(error),
            Ok(Err(PoolError::Closed)) => Err(sqlx::Error::PoolClosed),
            Ok(Err(_)) | Err(_) => Err(sqlx::Error::PoolTimedOut),
        }
    }

    /// Closes those that nobody has used for this time.
    pub(super) async fn close_unused(&self, time: Duration) {
        let unused = self.pool.retain(|_, metrics| metrics.last_used() < time).removed;
        for backend in unused {
            let _ = timeout(RETURN_LIMIT, backend.connection.close()).await;
        }
    }

    /// Closes them, each after the statement that runs on it.
    pub(super) async fn close(&self) {
        let idle = self.pool.retain(|_, _| false).removed;
        self.pool.close();
        for backend in idle {
            let _ = backend.connection.close().await;
        }
        while self.pool.status().size > 0 {
            sleep(CLOSE_POLL).await;
        }
    }

    /// Sees to it that the statement which runs on a connection ends. Answers whether the connection can be
    /// used again.
    async fn end_statement(&self, backend: &mut Backend, may_cancel: bool) -> bool {
        let Backend { connection, process } = backend;
        let mut is_cancelled = true;
        let ended = {
            let has_ended = has_ended(connection);
            tokio::pin!(has_ended);
            if let Ok(ended) = timeout(GRACE, &mut has_ended).await {
                return ended;
            }
            if may_cancel {
                is_cancelled = match process {
                    Some(process) => self.cancel(*process).await,
                    None => false,
                };
            }
            let limit = if is_cancelled { END_LIMIT } else { RETURN_LIMIT };
            let limit = self.silent.run_until_cancelled(timeout(limit, &mut has_ended)).await;
            matches!(limit, Some(Ok(true)))
        };
        // Asked once more: a cancellation that came when the statement had just ended is over then. One without
        // an answer may still come, and would hit the next statement.
        ended && is_cancelled && connection.ping().await.is_ok()
    }

    /// Asks Postgres to cancel what a backend runs. False when it could not be asked.
    async fn cancel(&self, process: Process) -> bool {
        let Process { pid, since } = process;
        let cancel = async {
            let _one_at_a_time = self.cancelling.lock().await;
            let mut connection = self.target.connect(Purpose::Statements).await?.connection;
            let cancel =
                sqlx::query_file_scalar!("src/store/sql/pg/cancel_backend.sql", pid, since);
            let found = cancel.fetch_optional(&mut connection).await?;
            connection.close().await?;
            Ok::<_, sqlx::Error>(found)
        };
        let cancelled = self.silent.run_until_cancelled(timeout(CANCEL_LIMIT, cancel)).await;
        match cancelled {
            Some(Ok(Ok(_))) => {
                metrics::counter!("holdfast_statements_cancelled_total").increment(1);
                true
            }
            Some(Ok(Err(error))) => {
                tracing::warn!(%error, "a statement that nobody waits for could not be cancelled");
                false
            }
            Some(Err(_)) | None => false,
        }
    }
}

/// Waits until nothing runs on a connection any more. Answers whether it can be used again.
async fn has_ended(connection: &mut PgConnection) -> bool {
    // What the statement failed with is told first, and is nobody's any more.
    for _ in 0..3 {
        match connection.ping().await {
            Ok(()) => return true,
            Err(error @ sqlx::Error::Database(_)) if fault(&error) != Fault::Unavailable => {}
            Err(_) => return false,
        }
    }
    false
}

/// What is held as long as a statement runs in Postgres, also when nobody waits for it.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Of the connections, for what only reads.
    _ticket: Option<FairPermit>,
    /// Whether it changes nothing, so that it may be cancelled when nobody waits for it.
    may_cancel: bool,
}

impl Held {
    pub(super) fn new(ticket: Option<FairPermit>, may_cancel: bool) -> Self {
        Self { _ticket: ticket, may_cancel }
    }
}

/// A connection while a statement runs on it.
pub(super) struct Lent {
    backend: Option<Object<Server>>,
    held: Held,
    pool: Connections,
}

impl Lent {
    /// The connection.
    pub(super) fn connection(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        let backend = self.backend.as_deref_mut().ok_or(sqlx::Error::WorkerCrashed)?;
        Ok(&mut backend.connection)
    }

    /// Its statement has ended so. When it is the connection that failed, those that nobody uses are given
    /// up too: most likely the server went away with all of them.
    pub(super) fn give_back(mut self, error: Option<&sqlx::Error>) {
        let Some(backend) = self.backend.take() else { return };
        let is_usable = error.is_none_or(|error| {
            matches!(error, sqlx::Error::Database(_)) && fault(error) != Fault::Unavailable
        });
        if is_usable {
            drop(backend);
        } else {
            drop(Object::take(backend));
            drop(self.pool.pool.retain(|_, _| false));
        }
    }
}

impl Drop for Lent {
    /// Nobody waits for its statement any more. It has to end before the connection can be used again, and
    /// before others have what it held: one that only reads is cancelled. A connection on which nothing
    /// ends, because the server is gone, is closed.
    fn drop(&mut self) {
        let Some(mut backend) = self.backend.take() else { return };
        let (held, pool) = (std::mem::take(&mut self.held), self.pool.clone());
        let Ok(runtime) = Handle::try_current() else {
            drop(Object::take(backend));
            return;
        };
        runtime.spawn(async move {
            if !pool.end_statement(&mut backend, held.may_cancel).await {
                drop(Object::take(backend));
            }
            drop(held);
        });
    }
}
