//! The connections to the database: which of them may be used, and how long an answer is waited for.
//!
//! A database fails over in ways that its connections do not show. An old primary may live on,
//! read-only, with every connection to it open. A host may be gone without a word, and a
//! connection to it waits for ever. So connections belong to a [`Generation`]. When one of them shows that
//! the server behind it is no longer the one that takes writes, all of its generation are dropped.
//! The next statement opens a new one, to the server that the database's address names by then.

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
    Describe, Either, Execute, Executor, Postgres, SqlStr,
    postgres::{PgQueryResult, PgRow, PgStatement, PgTypeInfo},
};
use tokio::{
    sync::Mutex,
    task::coop::consume_budget,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    commits::Commits,
    connections::{Connections, Held, connect_patiently},
    error::{is_read_only, is_unusable},
    target::{Opened, Purpose, Target},
};
use crate::admission::{FairPermits, Meter, Overload, Queue, origin};

/// Longer than Postgres lets any of our statements run (see [`crate::store::Store::open`]), and than a
/// connection is waited for. A statement that has no answer by then gets none: it counts as one that
/// found no database.
const STATEMENT_LIMIT: Duration = Duration::from_secs(20);
/// How many statements of one caller read at once: more would take the database's processors from all others.
const READS_OF_ONE: usize = 2;
/// How long a ping may take before it is asked whether only its own connection is dead.
const PING_LIMIT: Duration = Duration::from_millis(800);
/// What a ping gets on top when a new connection was answered: both may have waited for the same.
const PING_GRACE: Duration = Duration::from_millis(150);

/// The connections. Cheap to clone; statements run on it as on one of sqlx's pools.
#[derive(Clone)]
pub(in crate::store) struct Db {
    target: Arc<Target>,
    size: u32,
    current: Arc<RwLock<Generation>>,
    /// How many may be used at once by this clone, when not all; fair among callers.
    tickets: Option<FairPermits>,
    /// How long a statement may take, from when it has its connection.
    limit: Duration,
    /// Whether this clone's statements may be cancelled when nobody waits for them.
    may_cancel: bool,
    /// How long a connection is waited for.
    waits: Arc<StdMutex<Meter>>,
    /// Whether the database commits, over one connection more.
    commits: Commits,
    /// One connection for health alone: a server whose connections are all busy is not unhealthy.
    health: Arc<Mutex<HealthConnection>>,
}

/// What health asks over.
#[derive(Default)]
struct HealthConnection {
    /// The connection, and the generation that was in use when it was made.
    kept: Option<(u64, Opened)>,
    /// A generation whose time it was when a connection gave no answer.
    silent: Option<u64>,
}

/// Connections that are dropped together.
#[derive(Clone)]
struct Generation {
    number: u64,
    connections: Connections,
    /// Cancelled when no answer is to come over these connections any more.
    silent: CancellationToken,
}

/// Why a generation is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// The server takes no writes. It still answers what it was asked.
    ReadOnly,
    /// One connection got no answer while a new one did.
    Silent,
    /// What a pooler hands out has lost its settings.
    Unfit,
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Db(generation {})", self.current().number)
    }
}

impl Db {
    /// At most `size` connections at a time. Connects when it is first used.
    pub(in crate::store) fn new(target: Target, size: u32, overload: &Overload) -> Self {
        let target = Arc::new(target);
        let silent = CancellationToken::new();
        let first = Generation {
            number: 0,
            connections: Connections::new(Arc::clone(&target), size, silent.clone()),
            silent,
        };
        Self {
            target,
            size,
            current: Arc::new(RwLock::new(first)),
            tickets: None,
            limit: STATEMENT_LIMIT,
            may_cancel: false,
            waits: Arc::new(StdMutex::new(overload.meter(Queue::Work))),
            commits: Commits::default(),
            health: Arc::default(),
        }
    }

    /// Rises when connections are dropped.
    pub(in crate::store) fn generation(&self) -> u64 {
        self.current().number
    }

    /// A connection for migrations, which may take long, and wait for each other.
    pub(super) async fn connect_to_migrate(&self) -> Result<Opened, sqlx::Error> {
        connect_patiently(&self.target, Purpose::Migrations).await
    }

    /// Where they are opened.
    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// The same connections for what only reads: half of them at a time, and [`READS_OF_ONE`] for one caller. For any load
    /// the others are left to those who hold a lease.
    pub(in crate::store) fn for_rest(&self, overload: &Overload) -> Self {
        let some = usize::try_from(self.size / 2).unwrap_or(1).max(1);
        Self {
            tickets: Some(FairPermits::for_work_of_callers(some, READS_OF_ONE)),
            may_cancel: true,
            waits: Arc::new(StdMutex::new(overload.meter(Queue::Rest))),
            ..self.clone()
        }
    }

    /// The same, for statements that may take so long. One that takes longer is cancelled.
    pub(in crate::store) fn within(&self, limit: Duration) -> Self {
        Self { limit: limit.min(STATEMENT_LIMIT), ..self.clone() }
    }

    /// Closes the connections that nobody has used for this time.
    pub(in crate::store) async fn close_unused(&self, time: Duration) {
        let connections = self.current().connections;
        connections.close_unused(time).await;
    }

    /// Closes the connections, after the statements that are running.
    pub(in crate::store) async fn close(&self) {
        self.health.lock().await.kept.take();
        self.commits.close().await;
        self.current().connections.close().await;
    }

    /// The database wrote this time before, in milliseconds since 1970.
    pub(in crate::store) fn note_time(&self, written_ms: i64) {
        self.target.clock().was(written_ms);
    }

    /// Whether the database commits what is written: a row of this server, every time that it is asked.
    pub(in crate::store) async fn commits(&self, server_id: Uuid) -> Result<(), sqlx::Error> {
        self.commits.check(&self.target, self.generation(), server_id).await
    }

    /// Whether the database answers, and takes writes.
    pub(in crate::store) async fn ping(&self) -> Result<(), sqlx::Error> {
        let mut health = self.health.lock().await;
        let Some((number, mut kept)) = health.kept.take() else {
            return self.connect_for_health(&mut health, 2 * PING_LIMIT).await;
        };
        let answer = {
            let asked = self.target.check(&mut kept, Purpose::Statements);
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
                    self.reopen(number, Why::ReadOnly);
                } else if is_unusable(&error) {
                    self.reopen(number, Why::Unfit);
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
    fn keep_for_health(&self, health: &mut HealthConnection, new: Opened) {
        if let Some(silent) = health.silent.take() {
            self.reopen(silent, Why::Silent);
        }
        health.kept = Some((self.current().number, new));
    }

    async fn connect_in_time(&self, limit: Duration) -> Result<Opened, sqlx::Error> {
        let connect = self.target.connect(Purpose::Statements);
        timeout(limit, connect).await.unwrap_or_else(|_| Err(no_answer()))
    }

    fn current(&self) -> Generation {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Drops a generation for a new one, unless that was done already.
    fn reopen(&self, number: u64, why: Why) {
        let old = {
            let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
            if current.number != number {
                return;
            }
            let silent = CancellationToken::new();
            let new = Generation {
                number: number + 1,
                connections: Connections::new(Arc::clone(&self.target), self.size, silent.clone()),
                silent,
            };
            std::mem::replace(&mut *current, new)
        };
        tracing::warn!(?why, "the database's connections are dropped, and opened anew");
        if why == Why::Silent {
            old.silent.cancel();
        }
        // Statements that are running end first, and their connections are closed then.
        tokio::spawn(async move { timeout(STATEMENT_LIMIT, old.connections.close()).await });
    }

    /// Runs a statement to its end.
    async fn run<'q, E: Execute<'q, Postgres> + 'q>(
        &self,
        query: E,
    ) -> Result<Vec<Either<PgQueryResult, PgRow>>, sqlx::Error> {
        let generation = self.current();
        let statement = async {
            let came = Instant::now();
            let ticket = match &self.tickets {
                Some(tickets) => Some(tickets.acquire(&origin::current_name()).await),
                None => None,
            };
            let held = Held::new(ticket, self.may_cancel);
            let mut lent = generation.connections.get(held).await?;
            self.waits.lock().unwrap_or_else(PoisonError::into_inner).waited(came.elapsed());
            let answer =
                timeout(self.limit, lent.connection()?.fetch_many(query).try_collect()).await;
            let Ok(answer) = answer else {
                // It is cancelled when the connection is dropped.
                metrics::counter!("holdfast_reads_too_long_total").increment(1);
                return Err(no_answer());
            };
            lent.give_back(answer.as_ref().err());
            answer
        };
        let answer = tokio::select! {
            answer = timeout(STATEMENT_LIMIT, statement) => answer.unwrap_or_else(|_| Err(no_answer())),
            () = generation.silent.cancelled() => Err(no_answer()),
        };
        if answer.as_ref().is_err_and(is_read_only) {
            self.reopen(generation.number, Why::ReadOnly);
        }
        answer
    }
}

fn no_answer() -> sqlx::Error {
    sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())
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
        // Rows are read as they are taken. Many are not without a pause: others have work on the same thread.
        let pause = |row| async move {
            consume_budget().await;
            Ok(row)
        };
        let rows =
            async move { Ok::<_, sqlx::Error>(stream::iter(self.run(query).await?).then(pause)) };
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
        Box::pin(async move {
            let mut opened = self.target.connect(Purpose::Statements).await?;
            opened.connection.prepare_with(sql, parameters).await
        })
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, sqlx::Error>>
    where
        'c: 'e,
    {
        Box::pin(async move {
            let mut opened = self.target.connect(Purpose::Statements).await?;
            opened.connection.describe(sql).await
        })
    }
}
