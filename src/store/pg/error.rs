//! Errors between the program and the database, by what to do about them.

use sqlx::{
    error::DatabaseError,
    postgres::{PgDatabaseError, PgSeverity},
};

use crate::failpoints::{self, Guard};

/// Why the store did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached or takes no writes; the same call may be tried again.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// There is no room for one more who waits; nothing was done.
    #[error("too many calls wait for the database")]
    Overloaded,
    /// The caller's deadline passed before anything was begun; nothing was done.
    #[error("the deadline passed before anything was begun")]
    DeadlinePassed,
    /// The server is stopping; nothing was done.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// The database refused a statement: a bug, or a schema that is not ours.
    #[error("the database refused a statement: {0}")]
    Refused(String),
    /// The code of a redemption that was to be made a success was redeemed again since, under another request.
    #[error("the code was redeemed again since, under another request")]
    CodeRedeemedAgain,
    /// The secret key changed, and this server did not know it yet; nothing was done.
    #[error("the secret key changed at this moment")]
    KeyChanged,
    /// A row holds a value that this program does not know.
    #[error("the database holds a value that is not known here: {0}")]
    Unreadable(&'static str),
    /// The database URL cannot be read.
    #[error("the database URL cannot be read: {0}")]
    BadUrl(String),
    /// The schema could not be brought up to date.
    #[error("the schema could not be brought up to date: {0}")]
    Migration(String),
    /// The schema is not one that this program can serve, or not as this role.
    #[error("{0}")]
    Schema(String),
}

/// What to do about a statement that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Fault {
    /// It met another statement: run it again, at once.
    Contention,
    /// Somebody else holds one of its rows: run its rows separately, so that the others need not wait.
    Blocked,
    /// There is no database to run it: run it again, later.
    Unavailable,
    /// It will fail again as it is.
    Refused,
}

/// Two statements that wait for each other.
const CONTENTION: [&str; 2] = ["40001", "40P01"];
/// A lock took longer than it may.
const LOCKED: &str = "55P03";
/// A lock, or the statement as a whole, took longer than it may.
const BLOCKED: [&str; 2] = [LOCKED, "57014"];
/// Classes of errors that a statement has whatever its rows hold: not supported, no such prepared statement, and our
/// own.
const OF_THE_STATEMENT: [&str; 3] = ["0A", "26", "HF"];
/// What was to be written was encrypted with a secret key that is not current any more: our own trigger says so.
const KEY_CHANGED: &str = "HF001";
/// A statement that would write, on a server that takes no writes.
const READ_ONLY: &str = "25006";
/// Starting, stopping, failing over, cut by an operator, an error of the disk, or unsure itself what
/// became of the statement: it comes back.
const UNAVAILABLE: [&str; 8] =
    ["57P01", "57P02", "57P03", "57P05", "58000", "58030", "40003", READ_ONLY];
/// The same, whole classes of it: no connection; a password that is not taken, which expired; out of memory, space or
/// connections.
const UNAVAILABLE_CLASSES: [&str; 3] = ["08", "28", "53"];

/// A server that was connected to and takes no writes: a standby, or a primary that was demoted.
#[derive(Debug, thiserror::Error)]
#[error("the database takes no writes: it is a standby, or was made read-only")]
struct ReadOnlyServer;

pub(in crate::store) fn read_only() -> sqlx::Error {
    sqlx::Error::AnyDriverError(Box::new(ReadOnlyServer))
}

/// A connection that cannot be used as it is, or not be opened, and why: it may be otherwise in a moment.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Unusable(String);

pub(in crate::store) fn unusable(why: String) -> sqlx::Error {
    sqlx::Error::AnyDriverError(Box::new(Unusable(why)))
}

pub(in crate::store) fn is_unusable(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::AnyDriverError(error) if error.is::<Unusable>())
}

/// Whether a pooler refused a connection for the settings that were asked of it.
pub(in crate::store) fn is_refused_option(error: &sqlx::Error) -> bool {
    // As PgBouncer says it, and as the proxy of Amazon's RDS does.
    const WORDS: [&str; 2] = ["startup parameter", "command-line options"];
    let told = error.as_database_error().map(|error| error.message());
    told.is_some_and(|told| WORDS.iter().any(|words| told.contains(words)))
}

/// What is wrong with a server's certificate, by what the TLS library says of it, and what to do.
const CERTIFICATES: [(&str, &str); 5] = [
    (
        "UnsupportedCertVersion",
        "the database's certificate is of X.509 version 1, which is not taken: it can say neither its host's name nor what \
         it is for. Make it with an extension file (openssl x509 -req … -extfile FILE, with subjectAltName=DNS:HOST)",
    ),
    (
        "CaUsedAsEndEntity",
        "the database's certificate is self-signed as a CA, and is used as a server's: make it with openssl req -x509 … \
         -addext basicConstraints=critical,CA:FALSE -addext subjectAltName=DNS:HOST, or sign one with the CA",
    ),
    (
        "UnknownIssuer",
        "the database's certificate is signed by nobody who is trusted: name its CA with sslrootcert in the URL",
    ),
    (
        "NotValidForName",
        "the database's certificate is for another host: it needs the URL's host as subjectAltName (its CN is not read), \
         or sslmode=verify-ca",
    ),
    ("Expired", "the database's certificate has expired"),
];

/// An error of TLS in words that say what to do, where there are some.
pub(in crate::store) fn of_certificate(error: sqlx::Error) -> sqlx::Error {
    let said = match &error {
        sqlx::Error::Tls(inner) => format!("{inner} {inner:?}"),
        sqlx::Error::Io(inner) => format!("{inner} {inner:?}"),
        _ => return error,
    };
    let known = CERTIFICATES.iter().find(|(word, _)| said.contains(word));
    match known {
        Some((_, why)) => unusable((*why).to_owned()),
        None => error,
    }
}

/// Whether a prepared statement is not there, or another one has its name.
pub(in crate::store) fn is_of_prepared_names(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(DatabaseError::code);
    code.is_some_and(|code| ["26000", "42P05"].contains(&&*code))
}

/// Whether the server that was asked takes no writes. Its connections are of no use then.
pub(in crate::store) fn is_read_only(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => error.code().as_deref() == Some(READ_ONLY),
        sqlx::Error::AnyDriverError(error) => error.is::<ReadOnlyServer>(),
        _ => false,
    }
}

pub(in crate::store) fn fault(error: &sqlx::Error) -> Fault {
    match error {
        _ if is_read_only(error) => Fault::Unavailable,
        _ if is_unusable(error) => Fault::Unavailable,
        sqlx::Error::Database(error) => database_fault(error.as_ref()),
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => Fault::Unavailable,
        _ => Fault::Refused,
    }
}

fn database_fault(error: &dyn DatabaseError) -> Fault {
    // A server that panicked restarts, whatever it panicked at.
    let panicked = error
        .try_downcast_ref::<PgDatabaseError>()
        .is_some_and(|error| matches!(error.severity(), PgSeverity::Panic));
    if panicked {
        return Fault::Unavailable;
    }
    match error.code().as_deref() {
        Some(code) if CONTENTION.contains(&code) => Fault::Contention,
        Some(code) if BLOCKED.contains(&code) => Fault::Blocked,
        Some(code) if UNAVAILABLE.contains(&code) => Fault::Unavailable,
        Some(code) if UNAVAILABLE_CLASSES.iter().any(|class| code.starts_with(class)) => {
            Fault::Unavailable
        }
        _ => Fault::Refused,
    }
}

/// Whether the statement may fail for one row, so that it is worth trying the rows separately. The database
/// refused it, or somebody holds what it waited for. Not where the statement as a whole took too long, or cannot
/// run whatever the rows hold.
pub(in crate::store) fn is_of_a_row(error: &sqlx::Error) -> bool {
    let is_refused = error.as_database_error().is_some_and(|database| {
        database_fault(database) == Fault::Refused && !is_of_the_statement(database)
    });
    (is_refused || is_blocked(error)) && failpoints::holds(Guard::BadRowsAreLeftOut)
}

/// Whether no row can be the cause.
fn is_of_the_statement(error: &dyn DatabaseError) -> bool {
    let code = error.code();
    code.is_some_and(|code| OF_THE_STATEMENT.iter().any(|class| code.starts_with(class)))
}

/// Whether somebody else held a row or a table for longer than a lock is waited for.
pub(in crate::store) fn is_blocked(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.code().as_deref() == Some(LOCKED))
}

/// Whether a unique index with this name refused the statement. A table that is distributed adds to the names.
pub(in crate::store) fn is_violation_of(error: &sqlx::Error, index: &str) -> bool {
    error.as_database_error().is_some_and(|error| {
        error.is_unique_violation()
            && error.constraint().is_some_and(|name| name.starts_with(index))
    })
}

fn is_key_changed(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.code().as_deref() == Some(KEY_CHANGED))
}

/// Whether a foreign key refused the statement.
pub(in crate::store) fn is_foreign_key_violation(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(DatabaseError::is_foreign_key_violation)
}

impl StoreError {
    pub(in crate::store) fn of(error: &sqlx::Error) -> Self {
        match fault(error) {
            Fault::Refused if is_violation_of(error, "redemptions_living_code") => {
                Self::CodeRedeemedAgain
            }
            Fault::Refused if is_key_changed(error) => Self::KeyChanged,
            Fault::Contention | Fault::Blocked | Fault::Unavailable => {
                Self::Unavailable(match error {
                    sqlx::Error::AnyDriverError(ours) => ours.to_string(),
                    error => error.to_string(),
                })
            }
            Fault::Refused => Self::Refused(error.to_string()),
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::of(&error)
    }
}

/// An error of the kind that one row may be the cause of.
#[cfg(test)]
pub(in crate::store) fn of_a_row_for_tests() -> sqlx::Error {
    #[derive(Debug, thiserror::Error)]
    #[error("a trigger refuses the row")]
    struct Raised;
    impl DatabaseError for Raised {
        fn message(&self) -> &str {
            "a trigger refuses the row"
        }
        fn kind(&self) -> sqlx::error::ErrorKind {
            sqlx::error::ErrorKind::Other
        }
        fn as_error(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
            self
        }
        fn as_error_mut(&mut self) -> &mut (dyn std::error::Error + Send + Sync + 'static) {
            self
        }
        fn into_error(self: Box<Self>) -> Box<dyn std::error::Error + Send + Sync + 'static> {
            self
        }
    }
    sqlx::Error::Database(Box::new(Raised))
}
