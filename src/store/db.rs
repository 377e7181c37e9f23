//! The connections to the database: which of them may be used, and how long an answer is waited for.
//!
//! A database fails over in ways that its connections do not show. An old primary may live on,
//! read-only, with every connection to it open; a host may be gone without a farewell, and whoever
//! waits for it waits for ever. So connections belong to a [`Generation`]. When one of them shows that
//! the server behind it is no longer the one that takes writes, all of its generation are given up,
//! and the next statement opens a new one, wherever the database's address leads by then.

use std::{
    fmt,
    sync::{Arc, Mutex as StdMutex, PoisonError, RwLock},
    time::Duration,
};

use futures_util::{
    StreamExt as _, TryStreamExt as _,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use sqlx::{
    Connection as _, Describe, Either, Execute, Executor, PgConnection, PgPool, Postgres, SqlStr,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions, PgQueryResult, PgRow, PgStatement, PgTypeInfo},
};
use tokio::{
    runtime::Handle,
    sync::{Mutex, Semaphore},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::error::{is_read_only, read_only};
use crate::overload::{Meter, Overload, Queue};

/// How long a caller waits for one of the pool's connections before the database counts as out of
/// reach.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(3);
/// Longer than Postgres lets any of our statements run (see [`super::Store::open`]), and than a
/// connection is waited for. A statement that has no answer by then gets none: it counts as one that
/// found no database.
const STATEMENT_LIMIT: Duration = Duration::from_secs(20);
/// How long a ping may take before it is asked whether only its own connection is dead.
const PING_LIMIT: Duration = Duration::from_millis(800);
/// What a ping gets on top when a new connection was answered: both may have waited for the same.
const PING_GRACE: Duration = Duration::from_millis(150);
/// How long a connection whose statement nobody waits for any more may take to be usable again.
const RETURN_LIMIT: Duration = Duration::from_secs(1);

/// The connections. Cheap to clone; statements run on it as on one of sqlx's pools.
#[derive(Clone)]
pub(super) struct Db {
    options: Arc<PgConnectOptions>,
    size: u32,
    current: Arc<RwLock<Generation>>,
    /// How many may be used at once by this clone, when not all.
    tickets: Option<Arc<Semaphore>>,
    /// How long a connection is waited for.
    waits: Arc<StdMutex<Meter>>,
    /// One connection for health alone: a server whose connections are all busy is not unhealthy.
    health: Arc<Mutex<HealthConnection>>,
}

/// What health asks over.
#[derive(Default)]
struct HealthConnection {
    /// The connection, and the generation that was in use when it was made.
    kept: Option<(u64, PgConnection)>,
    /// A generation whose time it was when a connection gave no answer.
    silent: Option<u64>,
}

/// Connections that are given up together.
#[derive(Clone)]
struct Generation {
    number: u64,
    pool: PgPool,
    /// Cancelled when no answer is to come over these connections any more.
    silent: CancellationToken,
}

/// Why a generation is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// The server takes no writes. It still answers what it was asked.
    ReadOnly,
    /// One connection got no answer while a new one did.
    Silent,
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Db(generation {})", self.current().number)
    }
}

impl Db {
    /// At most `size` connections at a time. Connects when it is first used.
    pub(super) fn new(options: PgConnectOptions, size: u32, overload: &Overload) -> Self {
        let first = Generation {
            number: 0,
            pool: open_pool(&options, size),
            silent: CancellationToken::new(),
        };
        Self {
            options: Arc::new(options),
            size,
            current: Arc::new(RwLock::new(first)),
            tickets: None,
            waits: Arc::new(StdMutex::new(overload.meter(Queue::Work))),
            health: Arc::default(),
        }
    }

    /// The same connections for what only looks: half of them at a time, so that whatever is asked, the
    /// others are left to those who hold a lease.
    pub(super) fn for_rest(&self, overload: &Overload) -> Self {
        let some = usize::try_from(self.size / 2).unwrap_or(1).max(1);
        Self {
            tickets: Some(Arc::new(Semaphore::new(some))),
            waits: Arc::new(StdMutex::new(overload.meter(Queue::Rest))),
            ..self.clone()
        }
    }

    /// The pool as it is now, for what is done once.
    pub(super) fn pool(&self) -> PgPool {
        self.current().pool
    }

    /// Closes the connections, after the statements that are running.
    pub(super) async fn close(&self) {
        self.health.lock().await.kept.take();
        self.pool().close().await;
    }

    /// Whether the database answers, and takes writes.
    pub(super) async fn ping(&self) -> Result<(), sqlx::Error> {
        let mut health = self.health.lock().await;
        let Some((number, mut kept)) = health.kept.take() else {
            return self.connect_for_health(&mut health, 2 * PING_LIMIT).await;
        };
        let answer = {
            let asked = check_writable(&mut kept);
            tokio::pin!(asked);
            match timeout(PING_LIMIT, &mut asked).await {
                Ok(answer) => answer,
                Err(_) => {
                    // Either the database stands still, or this connection is dead: a new one tells,
                    // now or when there is one.
                    health.silent = Some(number);
                    let new = self.connect_in_time(PING_LIMIT).await?;
                    if timeout(PING_GRACE, &mut asked).await.is_ok() {
                        health.silent = None;
                    }
                    self.keep_for_health(&mut health, new);
                    return Ok(());
                }
            }
        };
        match answer {
            Ok(()) => {
                health.kept = Some((number, kept));
                Ok(())
            }
            Err(error) => {
                if is_read_only(&error) {
                    self.give_up(number, Why::ReadOnly);
                }
                self.connect_for_health(&mut health, PING_LIMIT).await
            }
        }
    }

    async fn connect_for_health(
        &self,
        health: &mut HealthConnection,
        limit: Duration,
    ) -> Result<(), sqlx::Error> {
        let new = self.connect_in_time(limit).await?;
        self.keep_for_health(health, new);
        Ok(())
    }

    /// A new connection is answered: those of a generation that fell silent before are dead.
    fn keep_for_health(&self, health: &mut HealthConnection, new: PgConnection) {
        if let Some(silent) = health.silent.take() {
            self.give_up(silent, Why::Silent);
        }
        health.kept = Some((self.current().number, new));
    }

    async fn connect_in_time(&self, limit: Duration) -> Result<PgConnection, sqlx::Error> {
        let connect = async {
            let mut connection = PgConnection::connect_with(&self.options).await?;
            check_writable(&mut connection).await?;
            Ok(connection)
        };
        timeout(limit, connect).await.unwrap_or_else(|_| Err(no_answer()))
    }

    fn current(&self) -> Generation {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Uses a generation no more. One that was given up already stays so.
    fn give_up(&self, number: u64, why: Why) {
        let old = {
            let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
            if current.number != number {
                return;
            }
            let new = Generation {
                number: number + 1,
                pool: open_pool(&self.options, self.size),
                silent: CancellationToken::new(),
            };
            std::mem::replace(&mut *current, new)
        };
        tracing::warn!(?why, "the database's connections are given up, and opened anew");
        if why == Why::Silent {
            old.silent.cancel();
        }
        // Statements that are running end first, and their connections are closed then.
        tokio::spawn(async move { timeout(STATEMENT_LIMIT, old.pool.close()).await });
    }

    /// Runs a statement to its end.
    async fn run<'q, E: Execute<'q, Postgres> + 'q>(
        &self,
        query: E,
    ) -> Result<Vec<Either<PgQueryResult, PgRow>>, sqlx::Error> {
        let generation = self.current();
        let statement = async {
            let came = Instant::now();
            let _ticket = match &self.tickets {
                // Never closed.
                Some(tickets) => tickets.acquire().await.ok(),
                None => None,
            };
            let mut lent = Lent(Some(generation.pool.acquire().await?));
            self.waits.lock().unwrap_or_else(PoisonError::into_inner).waited(came.elapsed());
            let answer = match &mut lent.0 {
                Some(connection) => connection.fetch_many(query).try_collect().await,
                None => Err(no_answer()),
            };
            lent.give_back();
            answer
        };
        let answer = tokio::select! {
            answer = timeout(STATEMENT_LIMIT, statement) => answer.unwrap_or_else(|_| Err(no_answer())),
            () = generation.silent.cancelled() => Err(no_answer()),
        };
        if answer.as_ref().is_err_and(is_read_only) {
            self.give_up(generation.number, Why::ReadOnly);
        }
        answer
    }
}

fn open_pool(options: &PgConnectOptions, size: u32) -> PgPool {
    PgPoolOptions::new()
        .max_connections(size)
        .acquire_timeout(CONNECTION_TIMEOUT)
        // One that is refused here is tried again until the time to connect is over: the address may
        // lead elsewhere by then.
        .after_connect(|connection, _| Box::pin(check_writable(connection)))
        .connect_lazy_with(options.clone())
}

/// Refuses a server that takes no writes: a standby, or a primary that was demoted.
async fn check_writable(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let writable = sqlx::query_file_scalar!("src/store/sql/ping.sql").fetch_one(connection).await?;
    if writable { Ok(()) } else { Err(read_only()) }
}

fn no_answer() -> sqlx::Error {
    sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())
}

/// A connection while a statement runs on it.
struct Lent(Option<PoolConnection<Postgres>>);

impl Lent {
    /// Its statement has ended.
    fn give_back(mut self) {
        self.0.take();
    }
}

impl Drop for Lent {
    /// Nobody waits for its statement any more. sqlx would wait for the answer before the place in the
    /// pool is free again, and so for ever when the server is gone.
    fn drop(&mut self) {
        let Some(mut connection) = self.0.take() else { return };
        let Ok(runtime) = Handle::try_current() else {
            drop(connection.detach());
            return;
        };
        runtime.spawn(async move {
            if !matches!(timeout(RETURN_LIMIT, connection.ping()).await, Ok(Ok(()))) {
                drop(connection.detach());
            }
        });
    }
}

impl<'c> Executor<'c> for &'c Db {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let rows =
            async move { Ok::<_, sqlx::Error>(stream::iter(self.run(query).await?).map(Ok)) };
        stream::once(rows).try_flatten().boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxFuture<'e, Result<Option<PgRow>, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        Box::pin(async move { Ok(self.run(query).await?.into_iter().find_map(Either::right)) })
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, sqlx::Error>>
    where
        'c: 'e,
    {
        Box::pin(async move { self.pool().acquire().await?.prepare_with(sql, parameters).await })
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, sqlx::Error>>
    where
        'c: 'e,
    {
        Box::pin(async move { self.pool().acquire().await?.describe(sql).await })
    }
}
