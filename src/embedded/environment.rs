//! The variables that Postgres's programs and clients read from the environment: they concern other databases, never
//! the private one.

use std::{env, ffi::OsString, os::unix::process::CommandExt as _, path::Path, process::Command};

use anyhow::Context as _;

/// How the names begin: `PGPORT`, `PGOPTIONS`, `PGSSLMODE`, `PGDATA`, …
const PREFIX: &str = "PG";

/// What programs of the private Postgres get of the environment: where to find programs and libraries, and no secret.
const PASSED_ON: [&str; 3] = ["PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"];

/// Starts this program anew without them, when there are any; it has not done anything else yet. The driver completes
/// a URL with these variables, and its options cannot all be taken back later.
///
/// # Errors
/// When the program cannot be started anew.
pub fn leave_out_pg_variables() -> anyhow::Result<()> {
    let names: Vec<OsString> = pg_variables().collect();
    if names.is_empty() {
        return Ok(());
    }
    let unset = names.iter().map(|name| name.to_string_lossy()).collect::<Vec<_>>().join(", ");
    let what = || format!("this program cannot start itself anew without {unset}: unset them");
    let mut command = Command::new(env::current_exe().with_context(what)?);
    let mut arguments = env::args_os();
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    command.args(arguments);
    leave_out_of(&mut command);
    Err(command.exec()).with_context(what)
}

/// Starts a command without them.
pub fn leave_out_of(command: &mut Command) {
    for name in pg_variables() {
        command.env_remove(name);
    }
}

/// The names of those that are set.
pub fn pg_variables() -> impl Iterator<Item = OsString> {
    env::vars_os()
        .map(|(name, _)| name)
        .filter(|name| name.as_encoded_bytes().starts_with(PREFIX.as_bytes()))
}

/// A program of the private Postgres, or one that helps it, with as little of the environment as it needs.
pub(super) fn program(path: impl AsRef<Path>) -> Command {
    let mut command = Command::new(path.as_ref());
    command.env_clear();
    command.envs(PASSED_ON.iter().filter_map(|name| Some((name, env::var_os(name)?))));
    command
}
