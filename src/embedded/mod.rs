//! A private Postgres: for `serve` without a database URL, for `demo` and for the tests.
//!
//! The programs of an installed Postgres are run on a directory of their own. They listen on a Unix
//! socket alone, in a directory that nobody else can enter, and never outlive this program: a small
//! shell ([`supervisor`]) stops them when the pipe that this program holds is closed, which the
//! kernel does even after `kill -9`.

mod environment;
mod home;
mod owner;
mod programs;
mod supervisor;

use std::{
    path::{Path, PathBuf},
    process::ExitStatus,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

pub use environment::{leave_out_of, leave_out_pg_variables, pg_variables};

use home::Home;
use programs::Programs;
use supervisor::Supervisor;

/// The user that connections are made as. It owns everything, and has no password: what guards the
/// data is the socket's directory.
pub const USER: &str = "holdfast";

/// Not a secret: Postgres does not ask for it. Where a URL has one, nobody searches `~/.pgpass`.
const PASSWORD: &str = "none";

/// The number in the socket's name.
const PORT: &str = "5432";

/// The database that every private Postgres has from the start.
pub const DATABASE: &str = "holdfast";

/// How long a start may take. Reaching it takes a great deal of data to recover after a crash.
const START_TIMEOUT: Duration = Duration::from_secs(300);

/// How often a start or a stop is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// How often a Postgres that should go on running is looked at.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// Where a private Postgres keeps its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// In this directory, for good: made when it is not there, and safe from a loss of power.
    Kept(PathBuf),
    /// In memory where the system has room for it, else in the directory for temporary files.
    /// Removed when it stops, also after this program was killed.
    ThrowAway,
}

/// What a private Postgres is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it keeps its data.
    pub data: Data,
    /// The directory of Postgres's programs; looked for in the usual directories when not given.
    pub bin_dir: Option<PathBuf>,
    /// Settings of `postgresql.conf` by name, which go before those chosen here.
    pub settings: Vec<(String, String)>,
}

impl Options {
    /// Data in `data`, programs from the usual directories, and no settings of one's own.
    pub fn new(data: Data) -> Self {
        Self { data, bin_dir: None, settings: Vec::new() }
    }
}

/// A Postgres that runs until this is dropped or the program ends, however it ends.
#[derive(Debug)]
pub struct Postgres {
    supervisor: Supervisor,
    home: Home,
}

impl Postgres {
    /// Starts Postgres, and makes its data first where there is none: about a second then, a tenth
    /// of one otherwise. Answers when it takes connections.
    ///
    /// # Errors
    /// When no Postgres of version 15 or later is installed, when another program uses the
    /// directory, or when Postgres does not start; the last lines of its log are in the error then.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let made_by = home::data_version(&options.data)?;
        let programs = Programs::find(options.bin_dir.as_deref(), made_by)?;
        let mut home = Home::open(&options.data).await?;
        let supervisor = Supervisor::spawn(&programs, &mut home, &options.settings)?;
        let mut postgres = Self { supervisor, home };
        postgres.wait_until_ready().await?;
        tracing::debug!(directory = %postgres.home.path().display(), "private Postgres started");
        Ok(postgres)
    }

    /// The URL of one of its databases, for this program and for `psql`.
    pub fn url(&self, database: &str) -> String {
        socket_url(self.home.socket_dir(), database)
    }

    /// The directory of its socket.
    pub fn socket_dir(&self) -> &Path {
        self.home.socket_dir()
    }

    /// The directory that holds its data and its log.
    pub fn directory(&self) -> &Path {
        self.home.path()
    }

    /// Waits until it ends by itself, which it never should; says how it ended, with the last lines
    /// of its log. A server that waits for this beside its work need not go on without a database.
    pub async fn ended(&mut self) -> anyhow::Error {
        let status = match self.exit(WATCH_INTERVAL).await {
            Ok(status) => status,
            Err(error) => return error,
        };
        anyhow::anyhow!("Postgres ended ({status}); its log says:\n{}", self.home.log_tail())
    }

    /// Stops it: connections are closed, and kept data is written out, which takes a moment.
    ///
    /// # Errors
    /// When Postgres did not end well. Kept data is safe even so: the next start recovers it.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.supervisor.ask_to_stop();
        let status = self.exit(POLL_INTERVAL).await?;
        if !status.success() && !self.home.is_throw_away() {
            bail!("Postgres did not end well ({status}):\n{}", self.home.log_tail());
        }
        Ok(())
    }

    async fn exit(&mut self, poll_interval: Duration) -> anyhow::Result<ExitStatus> {
        loop {
            match self.supervisor.exit_status()? {
                Some(status) => return Ok(status),
                None => tokio::time::sleep(poll_interval).await,
            }
        }
    }

    async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        while !self.home.takes_connections() {
            if let Some(status) = self.supervisor.exit_status()? {
                return Err(self.start_failure(&format!("it ended with {status}")));
            }
            if Instant::now() > deadline {
                let waited = format!("it was not ready after {} s", START_TIMEOUT.as_secs());
                return Err(self.start_failure(&waited));
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    fn start_failure(&self, why: &str) -> anyhow::Error {
        let directory = self.home.path().display();
        let log = self.home.log_tail();
        if log.contains("lock file \"postmaster.pid\" already exists") {
            return anyhow::anyhow!(
                "{directory} is in use by a Postgres that this program did not start; its log \
                 says:\n{log}"
            );
        }
        anyhow::anyhow!("Postgres did not start in {directory}: {why}; its log says:\n{log}")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.supervisor.stop();
        self.home.remove_leftovers();
    }
}

/// The URL of a database behind the socket in `socket_dir`. It says all that a `PG*` variable or `~/.pgpass` would
/// complete otherwise, but for `PGOPTIONS` (see [`leave_out_pg_variables`]).
fn socket_url(socket_dir: &Path, database: &str) -> String {
    let socket_dir = percent_encoded(&socket_dir.to_string_lossy());
    let database = percent_encoded(database);
    format!("postgres://{USER}:{PASSWORD}@{socket_dir}:{PORT}/{database}?sslmode=disable")
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// An error of the operating system about a path, with the path.
fn about<T>(path: &Path, what: &str, result: std::io::Result<T>) -> anyhow::Result<T> {
    result.with_context(|| format!("cannot {what} {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_names_the_socket_whatever_its_path_is() {
        assert_eq!(
            socket_url(Path::new("/tmp/hf-a b%c"), "te?st"),
            "postgres://holdfast:none@%2Ftmp%2Fhf-a%20b%25c:5432/te%3Fst?sslmode=disable"
        );
    }
}
