//! The user that runs Postgres. It refuses to run as root, so root runs it as another user.

use std::{
    fs,
    io::ErrorKind,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};

use super::{about, environment};

/// Users that root runs Postgres as: the first one that the system knows.
const CANDIDATES: [&str; 2] = ["postgres", "nobody"];

/// Who runs Postgres and owns its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// The user who runs this program.
    Ourselves,
    /// Another user, because this program is run by root.
    Other {
        /// The user's number.
        uid: u32,
        /// The number of the user's group.
        gid: u32,
    },
}

impl Owner {
    /// Who is to run the Postgres whose data is, or will be, at `data`.
    pub(super) fn of(data: &Path) -> anyhow::Result<Self> {
        match fs::metadata(data) {
            // Data that is there already keeps its owner.
            Ok(found) if is_root() && found.uid() != 0 => {
                Ok(Self::Other { uid: found.uid(), gid: found.gid() })
            }
            Err(error) if error.kind() != ErrorKind::NotFound => about(data, "read", Err(error)),
            _ => Self::of_new_data(),
        }
    }

    /// Who is to run a Postgres that has no data yet.
    pub(super) fn of_new_data() -> anyhow::Result<Self> {
        if !is_root() {
            return Ok(Self::Ourselves);
        }
        for name in CANDIDATES {
            if let (Some(uid), Some(gid)) = (number_of("-u", name)?, number_of("-g", name)?) {
                return Ok(Self::Other { uid, gid });
            }
        }
        bail!(
            "Postgres does not run as root, and the system has no user {}: run this program as \
             another user, or give it HOLDFAST_DATABASE_URL",
            CANDIDATES.join(" or ")
        )
    }

    /// Makes `command` run as this user.
    pub(super) fn run(self, command: &mut Command) {
        if let Self::Other { uid, gid } = self {
            command.uid(uid).gid(gid);
        }
    }

    /// Gives a directory to this user, closed to everybody else.
    pub(super) fn take(self, dir: &Path) -> anyhow::Result<()> {
        about(dir, "restrict", fs::set_permissions(dir, fs::Permissions::from_mode(0o700)))?;
        match self {
            Self::Ourselves => Ok(()),
            Self::Other { uid, gid } => about(dir, "give away", chown(dir, Some(uid), Some(gid))),
        }
    }

    /// Checks that this user gets to `dir`: root can make a directory where others cannot follow.
    pub(super) fn check_reaches(self, dir: &Path) -> anyhow::Result<()> {
        let Self::Other { uid, .. } = self else { return Ok(()) };
        if self.reaches(dir)? {
            return Ok(());
        }
        let mut barrier = dir;
        for ancestor in dir.ancestors() {
            if !self.reaches(ancestor)? {
                barrier = ancestor;
            }
        }
        bail!(
            "Postgres does not run as root, and the user who runs it (number {uid}) cannot enter \
             {}: keep the data elsewhere (--data-dir, HOLDFAST_DATA_DIR; /var/lib/holdfast, say), \
             or run this program as another user",
            barrier.display()
        )
    }

    fn reaches(self, dir: &Path) -> anyhow::Result<bool> {
        let mut shell = environment::program("/bin/sh");
        shell.args(["-c", "cd -- \"$0\""]).arg(dir).current_dir("/");
        shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.run(&mut shell);
        Ok(shell.status().context("cannot run /bin/sh")?.success())
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A user's number (`-u`) or that of its group (`-g`), when the system knows the user.
fn number_of(which: &str, name: &str) -> anyhow::Result<Option<u32>> {
    let output =
        environment::program("id").args([which, name]).output().context("cannot run id")?;
    if !output.status.success() {
        return Ok(None);
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().parse().ok())
}
