//! This machine: the file of the secret keys, space on the disk, and files that may be open.

use std::path::{Path, PathBuf};

use rustix::process::{Resource, getrlimit};

use super::{DoctorArgs, Of, about_file, told};
use crate::{
    app::examine::{self, KEY_FILE},
    domain::secret_key::StoredKey,
    secret_file,
};

/// Less space is a warning, and much less a failure: Postgres stops when it has none.
const LITTLE: u64 = 1024 * 1024 * 1024;
const NONE: u64 = 100 * 1024 * 1024;
/// A server that may open fewer files takes fewer connections than its limit.
const FILES: u64 = 20_000;

/// Checks the file of the secret keys, against those that the database knows where that told.
pub(super) fn keys(
    args: &DoctorArgs,
    stored: Option<&[StoredKey]>,
    of: &mut Of<'_>,
) -> anyhow::Result<()> {
    let Some(file) = key_file(args) else {
        return if stored.is_some() {
            let next = "name the file that the servers have: --secret-key-file";
            of.failed("key file", "a database is given, and no key file: serving needs one", next)
        } else {
            of.ok(
                "key file",
                "not checked: there is none here (a private Postgres gets one at its first start)",
            )
        };
    };
    let name = file.display();
    let warning = match secret_file::read_quietly(&file, "the secret key file") {
        Ok((_, warning)) => warning,
        Err(error) => {
            let otherwise = "put the file back from where it is kept: codes in the database cannot be read without it";
            let next = match about_file(&error, "--secret-key-file", otherwise) {
                next if file.exists() => next,
                next => format!("{next}: {otherwise}"),
            };
            return of.failed("key file", told(&error), &next);
        }
    };
    match examine::key_file(&file, stored) {
        Ok(count) => {
            let known = match stored {
                Some([]) => "; the database knows none yet, and takes the first",
                Some(_) => ", those that the database needs among them",
                None => "",
            };
            of.ok("keys", format_args!("{name} has {count}{known}"))?;
        }
        Err(error) => {
            let next = "use the key file of the other servers: `holdfast keys status` shows which keys are needed";
            of.failed("keys", told(&error), next)?;
        }
    }
    match warning {
        Some(why) => of.warning(
            "key file",
            format_args!("{name}: {why}"),
            "see that only the server's user can write it",
        ),
        None => of.ok("key file", format_args!("{name} is for its owner alone")),
    }
}

/// The file that is named, or that of the data directory.
fn key_file(args: &DoctorArgs) -> Option<PathBuf> {
    let own = || Some(args.server.data_dir().join(KEY_FILE)).filter(|file| file.exists());
    args.secret_key_file.clone().or_else(own)
}

/// Checks the disk and the limit on open files.
pub(super) fn check(args: &DoctorArgs, of: &mut Of<'_>) -> anyhow::Result<()> {
    disk(args.server.data_dir(), of)?;
    let limit = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    if limit < FILES {
        let next =
            "raise it (ulimit -Hn, or LimitNOFILE of systemd) where a server here is to take more";
        let found = format!("{limit} may be open: a server here takes {} connections", limit / 2);
        return of.warning("open files", found, next);
    }
    of.ok("open files", "as many as a server needs may be open")
}

fn disk(data_dir: &Path, of: &mut Of<'_>) -> anyhow::Result<()> {
    let name = data_dir.display();
    if !data_dir.exists() {
        return of.ok("disk", format_args!("not checked: there is no data directory {name} here"));
    }
    let free = match rustix::fs::statvfs(data_dir) {
        Ok(disk) => disk.f_bavail.saturating_mul(disk.f_frsize),
        Err(error) => {
            return of.warning("disk", format_args!("{name}: {error}"), "see that it can be read");
        }
    };
    let found = format!("{} MiB are free at {name}", free / (1024 * 1024));
    let next = "make space: Postgres stops when there is none";
    match free {
        free if free < NONE => of.failed("disk", found, next),
        free if free < LITTLE => of.warning("disk", found, next),
        _ => of.ok("disk", found),
    }
}
