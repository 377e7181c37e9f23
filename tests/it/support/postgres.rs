//! A Postgres of one test's own, which may go away and come back, and have a standby.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use super::{cluster::shared, wait::eventually};

const SCRIPT: &str = include_str!("postgres.sh");
/// How long Postgres may take to start: it may have a crash to recover from.
const LIMIT: Duration = Duration::from_secs(20);
/// The database that every Postgres has.
const DATABASE: &str = "postgres";

/// For all of them. A test's data need not outlive the machine.
const SETTINGS: [&str; 10] = [
    "listen_addresses=",
    "port=5432",
    "fsync=off",
    "shared_buffers=16MB",
    "max_connections=60",
    "wal_level=replica",
    "max_wal_senders=4",
    "wal_sender_timeout=2s",
    "timezone=UTC",
    "jit=off",
];

/// A Postgres with its own data, at one address for good. Stopped, and its data removed, when it is
/// dropped or the program ends.
pub(crate) struct OwnPostgres {
    dir: PathBuf,
    shell: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

/// Where Postgres's programs are, and who runs them: as the Postgres that all tests share.
struct Programs {
    bin: PathBuf,
    uid: u32,
    gid: u32,
}

impl Programs {
    async fn find() -> Self {
        let data = shared().await.directory().join("postgres/data");
        let owner = fs::metadata(&data).unwrap();
        let command = fs::read_to_string(data.join("postmaster.opts")).unwrap();
        let postgres = Path::new(command.split(' ').next().unwrap());
        Self { bin: postgres.parent().unwrap().to_owned(), uid: owner.uid(), gid: owner.gid() }
    }
}

impl OwnPostgres {
    /// A running one with nothing in it, with settings that go before the usual ones.
    pub(crate) async fn start(settings: &[&str]) -> Self {
        Self::prepare(None, None, settings).await.begin().await
    }

    /// The same, whose data has a disk of its own, of so many megabytes.
    pub(crate) async fn on_small_disk(megabytes: u32) -> Self {
        Self::prepare(None, Some(megabytes), &[]).await.begin().await
    }

    async fn begin(mut self) -> Self {
        self.command("init");
        self.start_again().await;
        self
    }

    /// A standby of this one, running. It is this one's synchronous standby as soon as this one is told
    /// to have one.
    pub(crate) async fn standby(&self) -> Self {
        let mut standby = Self::prepare(Some(&self.dir), None, &[]).await;
        standby.command("copy");
        standby.start_again().await;
        standby
    }

    async fn prepare(source: Option<&Path>, megabytes: Option<u32>, settings: &[&str]) -> Self {
        let programs = Programs::find().await;
        let dir = tempfile::Builder::new().prefix("hf-own-").tempdir_in(memory()).unwrap().keep();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
        let mut command = shell(&dir, &programs, megabytes);
        command.args(["-c", SCRIPT, "postgres.sh"]);
        for setting in SETTINGS.iter().chain(settings) {
            command.args(["-c", setting]);
        }
        command.env("DIR", &dir).env("BIN", &programs.bin).env("SOURCE", source.unwrap_or(&dir));
        command.current_dir("/").process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut shell = command.spawn().unwrap();
        let (commands, answers) = (shell.stdin.take(), shell.stdout.take().unwrap());
        Self { dir, shell, commands, answers: BufReader::new(answers) }
    }

    fn command(&mut self, command: &str) {
        writeln!(self.commands.as_ref().unwrap(), "{command}").unwrap();
        let mut status = String::new();
        self.answers.read_line(&mut status).unwrap();
        assert_eq!(status, "0\n", "{command} failed: {}", self.log());
    }

    /// Stops it at once, as a crash would: connections are cut, and nothing is written out.
    pub(crate) fn quit(&mut self) {
        self.command("quit");
    }

    /// Starts it again where it was, and waits until it takes connections.
    pub(crate) async fn start_again(&mut self) {
        self.begin_to_start();
        self.takes_connections().await;
    }

    /// Starts it again where it was.
    pub(crate) fn begin_to_start(&mut self) {
        self.command("start");
    }

    /// Waits until it takes connections.
    pub(crate) async fn takes_connections(&self) {
        let url = self.url();
        let started = "Postgres to take connections";
        eventually(LIMIT, started, async || PgConnection::connect(&url).await.ok()).await;
    }

    /// Fills its disk.
    pub(crate) fn fill_disk(&mut self) {
        self.command("fill");
    }

    /// Empties its disk of all that is not Postgres's.
    pub(crate) fn free_disk(&mut self) {
        self.command("free");
    }

    /// The URL of its database, past every proxy.
    pub(crate) fn url(&self) -> String {
        let dir = self.dir.to_str().unwrap().replace('/', "%2F");
        format!("postgres://holdfast:none@{dir}:5432/{DATABASE}?sslmode=disable")
    }

    /// What it said.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// Runs a statement that has no parameters.
    pub(crate) async fn run(&self, sql: &str) {
        let mut connection = PgConnection::connect(&self.url()).await.unwrap();
        connection.execute(AssertSqlSafe(sql)).await.unwrap();
        connection.close().await.unwrap();
    }

    /// Changes a setting while it runs.
    pub(crate) async fn set(&self, name: &str, value: &str) {
        self.run(&format!("ALTER SYSTEM SET {name} = '{value}'")).await;
        self.run("SELECT pg_reload_conf()").await;
        let changed = format!("{name} to be {value}");
        eventually(LIMIT, &changed, async || {
            let mut connection = PgConnection::connect(&self.url()).await.unwrap();
            let now: String = sqlx::query_scalar("SELECT current_setting($1)")
                .bind(name)
                .fetch_one(&mut connection)
                .await
                .unwrap();
            (now == value).then_some(())
        })
        .await;
    }

    /// Cuts the backends of the servers. Answers how many there were.
    pub(crate) async fn kill_backends(&self) -> i64 {
        let mut connection = PgConnection::connect(&self.url()).await.unwrap();
        sqlx::query_scalar(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
             WHERE application_name = 'holdfast'",
        )
        .fetch_one(&mut connection)
        .await
        .unwrap()
    }

    /// Waits for the standby from now on, at every commit.
    pub(crate) async fn wait_for_standby(&self) {
        self.set("synchronous_standby_names", "*").await;
        let in_step = "the standby to be synchronous";
        eventually(LIMIT, in_step, async || {
            let mut connection = PgConnection::connect(&self.url()).await.unwrap();
            let standbys: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM pg_stat_replication
                 WHERE state = 'streaming' AND sync_state = 'sync'",
            )
            .fetch_one(&mut connection)
            .await
            .unwrap();
            (standbys == 1).then_some(())
        })
        .await;
    }

    /// Makes a standby a primary.
    pub(crate) async fn promote(&self) {
        self.run("SELECT pg_promote()").await;
    }
}

impl Drop for OwnPostgres {
    fn drop(&mut self) {
        self.commands = None;
        let _ = self.shell.wait();
        // A disk of its own is gone by now, and what it was at is left.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A shell that runs as whoever runs Postgres; with a small disk at `dir/data` that nobody else sees,
/// when that is asked for.
fn shell(dir: &Path, programs: &Programs, megabytes: Option<u32>) -> Command {
    let Programs { uid, gid, .. } = *programs;
    let is_other = fs::metadata(dir).unwrap().uid() != uid;
    if is_other {
        chown(dir, Some(uid), Some(gid)).unwrap();
    }
    let Some(megabytes) = megabytes else {
        let mut shell = Command::new("/bin/sh");
        if is_other {
            shell.uid(uid).gid(gid);
        }
        return shell;
    };
    let data = dir.join("data");
    fs::create_dir(&data).unwrap();
    // As root in a space of mounts of its own; as anybody else by being root there for the moment.
    let (rights, then): (&[&str], _) = if is_other {
        (&[], format!("setpriv --reuid={uid} --regid={gid} --clear-groups"))
    } else {
        (&["--map-current-user", "--keep-caps"], String::new())
    };
    let mount = format!(
        "mount -t tmpfs -o size={megabytes}m,uid={uid},gid={gid},mode=0700 none {} || {{
            echo 'this test needs a disk that is full, and may not mount one: run it as root, or \
where users may have name spaces of their own' >&2
            exit 1
        }}
        exec {then} /bin/sh \"$@\"",
        data.display()
    );
    let mut shell = Command::new("unshare");
    shell.arg("--mount").args(rights).args(["--", "/bin/sh", "-c", &mount, "mount"]);
    shell
}

/// The file system in memory, where there is one.
fn memory() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}
