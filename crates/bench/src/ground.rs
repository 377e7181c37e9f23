//! The ground of a run: a directory on a disk, a Postgres of its own, the server's program and key.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;
use holdfast::{
    embedded::{Data, Options, Postgres},
    secret::{self, SecretKeys},
    store::Store,
};
#[cfg(target_os = "linux")]
use rustix::fs::statfs;

use crate::{args::Args, postgres};

/// What a file system in memory calls itself: syncing costs nothing there.
#[cfg(target_os = "linux")]
const TMPFS_MAGIC: i64 = 0x0102_1994;

const RUNS: [(&str, &str); 2] = [("max_wal_size", "32GB"), ("checkpoint_timeout", "1d")];
const STATEMENTS: (&str, &str) = ("shared_preload_libraries", "pg_stat_statements");

/// What its Postgres is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Short runs: a checkpoint is made before each, and at no other time.
    Runs,
    /// The same, and Postgres counts by the statement where it can.
    Statements,
    /// Long runs: as Holdfast starts its private Postgres.
    AsServed,
}

/// See the module. Removed when it is dropped.
pub(crate) struct Ground {
    postgres: Option<Postgres>,
    directory: Directory,
    server: PathBuf,
    server_log: String,
}

/// A directory that is removed.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Ground {
    pub(crate) async fn prepare(args: &Args, what_for: Use) -> anyhow::Result<Self> {
        let server = args.server()?;
        let directory = Directory(new_directory(args)?);
        let mut options = Options::new(Data::Kept(directory.0.join("postgres")));
        let settings: &[_] = match what_for {
            Use::Runs => &RUNS,
            Use::Statements => &[RUNS[0], RUNS[1], STATEMENTS],
            Use::AsServed => &[],
        };
        for (name, value) in settings {
            options.settings.push(((*name).to_owned(), (*value).to_owned()));
        }
        let postgres = Postgres::start(options).await?;
        let _ = SecretKeys::create_beside(&directory.0)?;
        Ok(Self {
            postgres: Some(postgres),
            directory,
            server,
            server_log: args.server_log.clone(),
        })
    }

    /// The URL of one of the databases.
    pub(crate) fn url(&self, database: &str) -> String {
        self.postgres.as_ref().map(|postgres| postgres.url(database)).unwrap_or_default()
    }

    /// Makes a database with Holdfast's schema in it.
    pub(crate) async fn new_database(&self, name: &str) -> anyhow::Result<String> {
        postgres::run(&self.url("postgres"), &format!("CREATE DATABASE {name}")).await?;
        let url = self.url(name);
        let store = Store::open(&url.clone().into(), 2)?;
        store.migrate().await?;
        store.close().await;
        Ok(url)
    }

    /// Removes a database, and every connection to it.
    pub(crate) async fn drop_database(&self, name: &str) -> anyhow::Result<()> {
        postgres::run(&self.url("postgres"), &format!("DROP DATABASE {name} WITH (FORCE)")).await
    }

    /// Writes out what waits to be: every run begins alike.
    pub(crate) async fn level(&self) -> anyhow::Result<()> {
        postgres::run(&self.url("postgres"), "CHECKPOINT").await
    }

    /// Where the databases are.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory.0
    }

    /// The process that all of Postgres's come from.
    pub(crate) fn postgres_pid(&self) -> anyhow::Result<u32> {
        let file = self.directory.0.join("postgres/postgres/data/postmaster.pid");
        let text = fs::read_to_string(file).context("Postgres's process is not known")?;
        Ok(text.lines().next().unwrap_or("").trim().parse()?)
    }

    /// The directory of the socket that the databases are reached by.
    pub(crate) fn socket_dir(&self) -> anyhow::Result<PathBuf> {
        let postgres = self.postgres.as_ref().context("Postgres was stopped")?;
        Ok(postgres.socket_dir().to_owned())
    }

    pub(crate) fn key_file(&self) -> PathBuf {
        self.directory.0.join(secret::FILE_NAME)
    }

    /// A command of the program that is measured.
    pub(crate) fn holdfast(&self, command: &str) -> Command {
        let mut holdfast = Command::new(&self.server);
        holdfast.args([command, "--while-stdin-is-open", "--log", &self.server_log]);
        holdfast
    }

    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        match self.postgres.take() {
            Some(postgres) => postgres.stop().await,
            None => Ok(()),
        }
    }
}

/// A new directory on a disk, which the user that Postgres runs as can reach.
fn new_directory(args: &Args) -> anyhow::Result<PathBuf> {
    let name = format!("holdfast-bench-{}", std::process::id());
    let usual = || [PathBuf::from("/var/tmp"), std::env::temp_dir()];
    let candidates = args.data_dir.clone().map_or_else(|| usual().to_vec(), |dir| vec![dir]);
    let parent = candidates
        .into_iter()
        .find(|dir| dir.is_dir() && !is_in_memory(dir))
        .context("no directory on a disk was found for the databases: name one with --data-dir")?;
    let directory = parent.join(name);
    fs::create_dir(&directory)
        .with_context(|| format!("{} cannot be made", directory.display()))?;
    Ok(directory)
}

#[cfg(target_os = "linux")]
#[allow(clippy::useless_conversion, reason = "the type is another one on other processors")]
fn is_in_memory(dir: &Path) -> bool {
    statfs(dir).is_ok_and(|found| i64::from(found.f_type) == TMPFS_MAGIC)
}

#[cfg(not(target_os = "linux"))]
fn is_in_memory(_: &Path) -> bool {
    false
}
