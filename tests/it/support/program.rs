//! The program as a process, against a world's server.

use std::{
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    time::timeout,
};

use super::world::World;

/// How long a command may take at most: one that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(120);

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) printed: String,
}

impl Finished {
    /// Asserts its exit code, and that it says each of these.
    #[track_caller]
    pub(crate) fn says(&self, code: i32, parts: &[&str]) -> &Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        for part in parts {
            assert!(self.printed.contains(part), "{part:?} is not printed: {self:#?}");
        }
        assert!(!self.printed.contains("panicked"), "{self:#?}");
        self
    }
}

/// The program with these arguments, talking to the world's server: as the admin, where that asks who calls.
pub(crate) fn program(world: &World, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    command
        .args(arguments)
        .args(["--server", &format!("http://{}", world.server(0).addr())])
        .env_remove("HOLDFAST_SERVER")
        .env("HOLDFAST_ITEM_KEY_FILE", concat!(env!("CARGO_TARGET_TMPDIR"), "/item.key"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    if let Some(admin) = &world.admin {
        command.env("HOLDFAST_TOKEN", admin);
    }
    command
}

/// Runs a command to its end.
pub(crate) async fn run(world: &World, arguments: &[&str]) -> Finished {
    finish(program(world, arguments).spawn().unwrap()).await
}

/// Reads what is left of a command's output, to its end.
pub(crate) async fn finish(child: Child) -> Finished {
    let done = timeout(LIMIT, child.wait_with_output()).await.expect("the command hangs").unwrap();
    Finished {
        code: done.status.code(),
        stdout: String::from_utf8(done.stdout).unwrap(),
        printed: String::from_utf8(done.stderr).unwrap(),
    }
}

/// Waits for the end of a command whose output nobody reads.
pub(crate) async fn ended(child: &mut Child) -> ExitStatus {
    timeout(LIMIT, child.wait()).await.expect("the command hangs").unwrap()
}

pub(crate) fn signal(child: &Child, signal: Signal) {
    let id = child.id().unwrap().try_into().unwrap();
    kill_process(Pid::from_raw(id).unwrap(), signal).unwrap();
}

/// Writes a file of so many lines under a header.
pub(crate) fn write_lines(
    path: &Path,
    header: &str,
    lines: impl IntoIterator<Item = String>,
) -> PathBuf {
    let lines: Vec<String> = lines.into_iter().collect();
    std::fs::write(path, format!("{header}\n{}\n", lines.join("\n"))).unwrap();
    path.to_owned()
}
