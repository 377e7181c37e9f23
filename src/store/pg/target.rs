//! Where connections are opened: the hosts that may serve the database, what is asked of a connection, and what a
//! pooler between may have left out of it.
//!
//! A pooler in transaction mode, such as PgBouncer, hands out its own connections, one for each statement. It leaves
//! out the settings that a connection is opened with, so the role has to have them. They are read back from each
//! connection that is opened, and with each question of health. A connection without them is not used: a lock that
//! somebody holds would hold up all others.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, SystemTime},
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use sqlx::{Connection as _, PgConnection, postgres::PgConnectOptions};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::{
    clock::Clock,
    error::{is_of_prepared_names, is_refused_option, of_certificate, read_only, unusable},
    url::{self, Parsed},
};
use crate::{
    domain::database::{Address, SETTINGS, SqlName},
    secret_file,
    store::StoreError,
};

/// A host that has not answered by then is tried together with the next.
const STAGGER: Duration = Duration::from_millis(200);
/// By this setting a connection knows itself again.
const MARK: &str = "holdfast.connection";
/// In which order two connections of a pooler are asked which process serves them. A pooler in transaction mode that
/// takes its own in turn gives no such order the same two answers.
const ASKED: [bool; 12] =
    [true, true, false, true, false, false, false, true, true, true, false, true];

const WITHOUT_PREPARED_STATEMENTS: &str = "a pooler is in front of Postgres that hands out its connections by transaction, and knows no prepared statements. \
     PgBouncer needs version 1.21 or later and max_prepared_statements above 0, or pool_mode = session";

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Statements, which have limits.
    Statements,
    /// Migrations, which may take long, and wait for each other.
    Migrations,
}

/// See [the module](self). It has passwords, and is not printed.
pub(in crate::store) struct Target {
    hosts: Vec<PgConnectOptions>,
    parsed: Parsed,
    address: Address,
    /// The host that took writes last.
    last: AtomicUsize,
    clock: Clock,
    /// A pooler was found between, and said so in the log.
    pooler_is_told: AtomicBool,
    /// The pooler was seen to keep its connections for as long as a client stays.
    keeps_sessions: AtomicBool,
}

/// A connection that was opened.
pub(super) struct Opened {
    pub(super) connection: PgConnection,
    /// A pooler is between. What serves one statement need not serve the next.
    pub(super) is_pooled: bool,
    mark: String,
    /// Of the addresses, the one that it is open to.
    place: usize,
}

/// What a connection says of itself.
struct Said {
    writable: bool,
    schema: Option<String>,
    now_ms: i64,
    direct: bool,
    differs: Vec<String>,
    own_names: bool,
}

impl Target {
    /// Reads the address.
    pub(in crate::store) fn of(address: &Address) -> Result<Self, StoreError> {
        let parsed = url::parse(&address.url)?;
        // Poolers refuse extra_float_digits, and no number of ours is a float.
        let hosts = parsed
            .hosts
            .iter()
            .map(|host| host.clone().application_name("holdfast").extra_float_digits(None));
        Ok(Self {
            hosts: hosts.collect(),
            parsed,
            address: address.clone(),
            last: AtomicUsize::default(),
            clock: Clock::default(),
            pooler_is_told: AtomicBool::default(),
            keeps_sessions: AtomicBool::default(),
        })
    }

    /// The clock of the server that takes writes, as far as it was told.
    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The schema that was asked for.
    pub(super) fn schema(&self) -> Option<&SqlName> {
        self.address.schema.as_ref()
    }

    /// Connects to the host that takes writes: the one that did so last, then the others, soon or at once.
    pub(super) async fn connect(&self, purpose: Purpose) -> Result<Opened, sqlx::Error> {
        let first = self.last.load(Ordering::Relaxed);
        let mut waiting = (0..self.hosts.len()).map(|step| (first + step) % self.hosts.len());
        let mut attempts = FuturesUnordered::new();
        let mut why = sqlx::Error::PoolTimedOut;
        while let Some(place) = waiting.next() {
            attempts.push(async move { (place, self.open(place, purpose).await) });
            let is_last = waiting.len() == 0;
            loop {
                let ended = tokio::select! {
                    ended = attempts.next() => ended,
                    () = sleep(STAGGER), if !is_last => break,
                };
                match ended {
                    Some((place, Ok(opened))) => {
                        self.last.store(place, Ordering::Relaxed);
                        return Ok(opened);
                    }
                    Some((_, Err(error))) => why = error,
                    None => break,
                }
                if !is_last {
                    break;
                }
            }
        }
        Err(why)
    }

    async fn open(&self, place: usize, purpose: Purpose) -> Result<Opened, sqlx::Error> {
        let open = async {
            let mut opened = self.open_any(place, purpose).await?;
            self.check(&mut opened, purpose).await?;
            Ok(opened)
        };
        match self.parsed.connect_timeout {
            Some(limit) => timeout(limit, open).await.unwrap_or_else(|_| Err(no_connection())),
            None => open.await,
        }
    }

    async fn open_any(&self, place: usize, purpose: Purpose) -> Result<Opened, sqlx::Error> {
        let mut bare = self.hosts[place].clone();
        if let Some(file) = &self.address.password_file {
            let password = secret_file::read(file, "the database password's file");
            let password = password.map_err(|error| unusable(format!("{error:#}")))?;
            bare = bare.password(password.trim_end_matches(['\r', '\n']));
        }
        let mark = Uuid::now_v7().to_string();
        let mut asked = bare.clone().options(SETTINGS).options([(MARK, &mark)]);
        if let Some(schema) = self.schema() {
            asked = asked.options([("search_path", schema.quoted())]);
        }
        if purpose == Purpose::Migrations {
            asked = asked.options([("statement_timeout", "0"), ("lock_timeout", "60s")]);
        }
        let connection = match PgConnection::connect_with(&asked).await {
            // A pooler that says that it leaves the settings out, instead of doing so. What the URL asks for stays.
            Err(error) if is_refused_option(&error) => PgConnection::connect_with(&bare).await,
            connected => connected,
        };
        let connection = connection.map_err(of_certificate)?;
        Ok(Opened { connection, is_pooled: false, mark, place })
    }

    /// Refuses a server that takes no writes (a standby, or a primary that was demoted), and what a pooler hands out
    /// without the settings that it needs.
    pub(super) async fn check(
        &self,
        opened: &mut Opened,
        purpose: Purpose,
    ) -> Result<(), sqlx::Error> {
        let before = SystemTime::now();
        let said = ask(opened).await.map_err(of_pooler)?;
        opened.is_pooled = !said.direct;
        if !said.writable {
            return Err(read_only());
        }
        self.clock.told(said.now_ms, before, SystemTime::now());
        if !opened.is_pooled || purpose == Purpose::Migrations {
            return Ok(());
        }
        if !self.pooler_is_told.swap(true, Ordering::Relaxed) {
            tracing::info!(
                "a pooler is in front of Postgres: the role's settings are read back from its connections"
            );
        }
        let lacks = self.lacks(&said);
        if !lacks.is_empty() {
            return Err(unusable(format!(
                "a pooler is in front of Postgres, and its connections are not as they must be: {}. Give these settings \
                 to the role (`holdfast grants --role NAME --pooler` prints how), then have the pooler open its \
                 connections anew (RECONNECT)",
                lacks.join("; ")
            )));
        }
        if said.own_names && !self.keeps_sessions.load(Ordering::Relaxed) {
            if !self.is_one_process_each(opened).await.map_err(of_pooler)? {
                return Err(unusable(WITHOUT_PREPARED_STATEMENTS.to_owned()));
            }
            self.keeps_sessions.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// What a connection of a pooler lacks, in words.
    fn lacks(&self, said: &Said) -> Vec<String> {
        let mut lacks = said.differs.clone();
        if let Some(schema) = self.schema()
            && said.schema.as_deref() != Some(schema.as_str())
        {
            let found = said.schema.as_deref().unwrap_or("no schema");
            lacks.push(format!("search_path leads to {found}, not {schema}"));
        }
        lacks
    }

    /// Whether a pooler keeps one of Postgres's processes for each of its clients: it has two, and each is served by one
    /// alone.
    async fn is_one_process_each(&self, opened: &mut Opened) -> Result<bool, sqlx::Error> {
        let mut other = self.open_any(opened.place, Purpose::Statements).await?;
        let (mut of_first, mut of_other) = (None, None);
        for is_first in ASKED {
            let (asked, known) = if is_first {
                (&mut opened.connection, &mut of_first)
            } else {
                (&mut other.connection, &mut of_other)
            };
            let pid = sqlx::query_file_scalar!("src/store/sql/pg/serving_process.sql");
            let pid = pid.fetch_one(asked).await?;
            if *known.get_or_insert(pid) != pid {
                return Ok(false);
            }
        }
        let _ = other.connection.close().await;
        Ok(of_first != of_other)
    }
}

async fn ask(opened: &mut Opened) -> Result<Said, sqlx::Error> {
    let (names, values): (Vec<_>, Vec<_>) =
        SETTINGS.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).unzip();
    sqlx::query_file_as!(Said, "src/store/sql/pg/ping.sql", &names, &values, &opened.mark)
        .fetch_one(&mut opened.connection)
        .await
}

/// A prepared statement that is not there, or is there already, on a new connection: another client of a pooler has it.
fn of_pooler(error: sqlx::Error) -> sqlx::Error {
    if is_of_prepared_names(&error) {
        return unusable(WITHOUT_PREPARED_STATEMENTS.to_owned());
    }
    error
}

fn no_connection() -> sqlx::Error {
    let why = "the database's host did not answer within the URL's connect_timeout";
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, why))
}
