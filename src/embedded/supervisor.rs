//! The shell that runs Postgres, and the pipe that tells it when to stop.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
};

use anyhow::Context as _;

use super::{DATABASE, PORT, USER, about, environment, home::Home, programs::Programs};

const SCRIPT: &str = include_str!("supervisor.sh");

/// For all data. There are no standbys, so the log of changes need not serve any.
const SETTINGS: [(&str, &str); 9] = [
    ("listen_addresses", ""),
    ("port", PORT),
    ("unix_socket_permissions", "0700"),
    ("max_connections", "200"),
    ("wal_level", "minimal"),
    ("max_wal_senders", "0"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    ("jit", "off"),
];

/// For data that is to last.
const KEPT_SETTINGS: [(&str, &str); 5] = [
    ("fsync", "on"),
    ("synchronous_commit", "on"),
    ("full_page_writes", "on"),
    ("shared_buffers", "256MB"),
    ("max_wal_size", "2GB"),
];

/// For data that nobody will miss after a crash.
const THROW_AWAY_SETTINGS: [(&str, &str); 4] = [
    ("fsync", "off"),
    ("full_page_writes", "off"),
    ("shared_buffers", "128MB"),
    ("log_checkpoints", "off"),
];

/// A running supervisor.
#[derive(Debug)]
pub(super) struct Supervisor {
    shell: Child,
    /// The pipe: Postgres runs as long as this is open.
    pipe: Option<ChildStdin>,
}

impl Supervisor {
    /// Starts the supervisor, which starts Postgres.
    pub(super) fn spawn(
        programs: &Programs,
        home: &mut Home,
        settings: &[(String, String)],
    ) -> anyhow::Result<Self> {
        let mut command = environment::program("/bin/sh");
        command.arg(write_script(home.socket_dir())?);
        command.args(options(home.is_throw_away(), settings));
        set_environment(&mut command, programs, home);
        let log = home.log().context("cannot use the log twice")?;
        let errors = log.try_clone().context("cannot use the log twice")?;
        command.stdin(Stdio::piped()).stdout(log).stderr(errors);
        // Out of the terminal's reach: Ctrl-C is for this program, which then stops Postgres.
        command.process_group(0).current_dir("/");
        home.owner().run(&mut command);
        let mut shell = command.spawn().context("cannot run /bin/sh")?;
        home.leave_to_supervisor();
        let pipe = shell.stdin.take();
        Ok(Self { shell, pipe })
    }

    /// Closes the pipe.
    pub(super) fn ask_to_stop(&mut self) {
        self.pipe = None;
    }

    /// How it ended, when it has.
    pub(super) fn exit_status(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.shell.try_wait().context("cannot wait for the supervisor of Postgres")
    }

    /// Closes the pipe, and waits for the end.
    pub(super) fn stop(&mut self) {
        self.ask_to_stop();
        if let Err(error) = self.shell.wait() {
            tracing::warn!(%error, "cannot wait for the supervisor of Postgres");
        }
    }
}

/// Puts the script into a file, so that a list of processes shows a name and not all of it.
fn write_script(dir: &Path) -> anyhow::Result<PathBuf> {
    let path = dir.join("holdfast-postgres");
    about(&path, "write", fs::write(&path, SCRIPT))?;
    // The user that runs Postgres reads it; nobody else gets into the directory.
    about(&path, "open", fs::set_permissions(&path, fs::Permissions::from_mode(0o644)))?;
    Ok(path)
}

fn set_environment(command: &mut Command, programs: &Programs, home: &Home) {
    let (initdb_options, stop_signal) =
        if home.is_throw_away() { ("--no-sync", "QUIT") } else { ("", "INT") };
    command
        .env("HF_BIN", &programs.bin_dir)
        .env("HF_DIR", home.cluster_dir())
        .env("HF_USER", USER)
        .env("HF_DATABASE", DATABASE)
        .env("HF_INITDB_OPTIONS", initdb_options)
        .env("HF_STOP_SIGNAL", stop_signal)
        .env("HF_SOCKET_DIR", home.socket_dir())
        .env("HF_DISCARD", if home.is_throw_away() { home.path().as_os_str() } else { "".as_ref() })
        // A lock file left by a crash names a process that is gone. In a container that starts over
        // the same number may be this program's; told so, Postgres knows that it isn't a Postgres.
        .env("PG_GRANDPARENT_PID", std::process::id().to_string());
}

/// Options for `postgres`. Of two for the same setting, the later one counts.
fn options(throw_away: bool, settings: &[(String, String)]) -> Vec<String> {
    let chosen: &[_] = if throw_away { &THROW_AWAY_SETTINGS } else { &KEPT_SETTINGS };
    let ours = SETTINGS.iter().chain(chosen).map(|(name, value)| format!("{name}={value}"));
    let theirs = settings.iter().map(|(name, value)| format!("{name}={value}"));
    ours.chain(theirs).flat_map(|setting| ["-c".to_owned(), setting]).collect()
}
