//! The directories of a private Postgres.
//!
//! ```text
//! DIRECTORY/            what the user named, or one made for throw-away data
//!   lock                locked by the program that uses the directory (kept data)
//!   postgres.log        what Postgres says; locked by Postgres and its supervisor
//!   postgres/data       the cluster, complete: it is made as data.new and then renamed
//! /tmp/hf-XXXXXX/       the socket; its path may be 107 bytes at most, so it is never in DIRECTORY
//! ```

use std::{
    env,
    fs::{self, File, OpenOptions, TryLockError},
    io::{ErrorKind, Read as _, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use tempfile::TempDir;

use super::{Data, POLL_INTERVAL, about, owner::Owner};
use crate::secret_file;

/// The longest path of a directory for a socket: 107 bytes less the names in it.
const MAX_SOCKET_PARENT_BYTES: usize = 107 - "/hf-XXXXXX/.s.PGSQL.5432".len();

/// Memory that must be free before throw-away data is put there; containers often give 64 MiB.
const MIN_FREE_MEMORY_BYTES: u64 = 1 << 30;

/// How long the Postgres of a program that was killed may take to stop.
const PREDECESSOR_TIMEOUT: Duration = Duration::from_secs(60);

/// How much of the end of the log goes into an error.
const LOG_TAIL_BYTES: u64 = 2_000;

/// The directories of one private Postgres, opened for the use of this program alone.
#[derive(Debug)]
pub(super) struct Home {
    path: PathBuf,
    socket_dir: PathBuf,
    throw_away: bool,
    owner: Owner,
    log: File,
    /// Held until this program ends, however it ends.
    _lock: Option<File>,
    /// Removes directories that no supervisor has been put in charge of.
    unsupervised: Vec<TempDir>,
}

impl Home {
    /// Makes the directories that are not there, and locks them.
    pub(super) async fn open(data: &Data) -> anyhow::Result<Self> {
        match data {
            Data::Kept(path) => Self::open_kept(path).await,
            Data::ThrowAway => Self::make_throw_away(),
        }
    }

    async fn open_kept(path: &Path) -> anyhow::Result<Self> {
        let path = make_dir(path)?;
        if secret_file::is_open_to_all(&path) {
            tracing::warn!(
                directory = %path.display(),
                "every user of this machine can replace the data of the private Postgres: run `chmod o-w` \
                 on its directory"
            );
        }
        let owner = Owner::of(&cluster_dir(&path))?;
        let lock = lock_for_this_program(&path)?;
        let log = about(&path, "open postgres.log in", open_log(&path))?;
        wait_for_predecessor(&path, &log).await?;
        about(&path, "empty postgres.log in", log.set_len(0))?;
        let cluster_dir = cluster_dir(&path);
        about(&cluster_dir, "make", fs::create_dir_all(&cluster_dir))?;
        owner.take(&cluster_dir)?;
        owner.check_reaches(&cluster_dir)?;
        let socket_dir = make_socket_dir(owner)?;
        Ok(Self {
            path,
            socket_dir: socket_dir.path().to_owned(),
            throw_away: false,
            owner,
            log,
            _lock: Some(lock),
            unsupervised: vec![socket_dir],
        })
    }

    fn make_throw_away() -> anyhow::Result<Self> {
        let owner = Owner::of_new_data()?;
        let parent = memory_dir().unwrap_or_else(env::temp_dir);
        let dir = about(
            &parent,
            "make a directory in",
            tempfile::Builder::new().prefix("holdfast-").tempdir_in(&parent),
        )?;
        let path = dir.path().to_owned();
        let cluster_dir = cluster_dir(&path);
        let log = about(&path, "open postgres.log in", open_log(&path))?;
        about(&cluster_dir, "make", fs::create_dir(&cluster_dir))?;
        owner.take(&cluster_dir)?;
        owner.take(&path)?;
        owner.check_reaches(&cluster_dir)?;
        let socket_dir = make_socket_dir(owner)?;
        Ok(Self {
            path,
            socket_dir: socket_dir.path().to_owned(),
            throw_away: true,
            owner,
            log,
            _lock: None,
            unsupervised: vec![dir, socket_dir],
        })
    }

    /// The directory that the user named, or that was made for throw-away data.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The directory of the cluster.
    pub(super) fn cluster_dir(&self) -> PathBuf {
        cluster_dir(&self.path)
    }

    /// The directory of the socket: another one at every start.
    pub(super) fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    /// Whether all of it goes away when Postgres stops.
    pub(super) fn is_throw_away(&self) -> bool {
        self.throw_away
    }

    /// Who runs Postgres.
    pub(super) fn owner(&self) -> Owner {
        self.owner
    }

    /// The log, for a process to write to.
    pub(super) fn log(&self) -> std::io::Result<File> {
        self.log.try_clone()
    }

    /// The last lines of the log, also when the file is gone already.
    pub(super) fn log_tail(&self) -> String {
        let len = self.log.metadata().map_or(0, |metadata| metadata.len());
        let start = len.saturating_sub(LOG_TAIL_BYTES);
        let mut tail = vec![0; usize::try_from(len - start).unwrap_or(0)];
        let read = self.log.read_at(&mut tail, start).unwrap_or(0);
        let text = String::from_utf8_lossy(&tail[..read]);
        let whole_lines = if start == 0 { 0 } else { text.find('\n').map_or(0, |end| end + 1) };
        text[whole_lines..].trim_end().to_owned()
    }

    /// Whether Postgres takes connections, by what it writes into `postmaster.pid`: line 5 is the
    /// directory of its socket, which tells this start from the one before a crash; line 8 is its
    /// state.
    pub(super) fn takes_connections(&self) -> bool {
        let Ok(text) = fs::read_to_string(self.cluster_dir().join("data/postmaster.pid")) else {
            return false;
        };
        let mut lines = text.lines().skip(4);
        lines.next().map(Path::new) == Some(&*self.socket_dir)
            && lines.nth(2).map(str::trim) == Some("ready")
    }

    /// Leaves the removal of directories to a supervisor, which is running from now on.
    pub(super) fn leave_to_supervisor(&mut self) {
        for dir in self.unsupervised.drain(..) {
            let _ = dir.keep();
        }
    }

    /// Removes what a supervisor would have removed, had it not been killed.
    pub(super) fn remove_leftovers(&self) {
        let throw_away = self.throw_away.then_some(&self.path);
        for dir in throw_away.into_iter().chain([&self.socket_dir]) {
            match fs::remove_dir_all(dir) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    tracing::warn!(directory = %dir.display(), %error, "not removed");
                }
                _ => {}
            }
        }
    }
}

/// The version of Postgres that made the data, when there is some.
pub(super) fn data_version(data: &Data) -> anyhow::Result<Option<u32>> {
    let Data::Kept(path) = data else { return Ok(None) };
    let file = cluster_dir(path).join("data/PG_VERSION");
    match fs::read_to_string(&file) {
        Ok(text) => {
            let version = text.trim().parse();
            version.map(Some).with_context(|| format!("{} holds no version", file.display()))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => about(&file, "read", Err(error)),
    }
}

fn cluster_dir(path: &Path) -> PathBuf {
    path.join("postgres")
}

/// The directory's full path. It is made when it is not there, open to passers-by: what is in it is
/// closed, and the user who runs Postgres has to get past.
fn make_dir(path: &Path) -> anyhow::Result<PathBuf> {
    if !path.exists() {
        about(path, "make", fs::create_dir_all(path))?;
        about(path, "open", fs::set_permissions(path, fs::Permissions::from_mode(0o711)))?;
    }
    about(path, "find", fs::canonicalize(path))
}

fn lock_for_this_program(path: &Path) -> anyhow::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let mut lock = about(path, "open lock in", options.open(path.join("lock")))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = lock.read_to_string(&mut holder);
            bail!(
                "{} is in use by another program (process {}); each needs a directory of its own",
                path.display(),
                holder.trim()
            )
        }
        Err(TryLockError::Error(error)) => return about(path, "lock", Err(error)),
    }
    // For the message above alone, so nothing is lost when it cannot be written.
    let _ = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
    Ok(lock)
}

fn open_log(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true).mode(0o600);
    options.open(path.join("postgres.log"))
}

/// Locks the log, and with it the data: Postgres and its supervisor inherit the lock, so it tells
/// how long anything of a predecessor that was killed is still at work.
async fn wait_for_predecessor(path: &Path, log: &File) -> anyhow::Result<()> {
    let deadline = Instant::now() + PREDECESSOR_TIMEOUT;
    loop {
        match log.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return about(path, "lock the log in", Err(error)),
            Err(TryLockError::WouldBlock) if Instant::now() > deadline => bail!(
                "the Postgres that a program left behind in {} is still stopping after {} s",
                path.display(),
                PREDECESSOR_TIMEOUT.as_secs()
            ),
            Err(TryLockError::WouldBlock) => tokio::time::sleep(POLL_INTERVAL).await,
        }
    }
}

/// A directory for the socket that only Postgres and this program can enter.
fn make_socket_dir(owner: Owner) -> anyhow::Result<TempDir> {
    let mut parent = env::temp_dir();
    if parent.as_os_str().len() > MAX_SOCKET_PARENT_BYTES {
        parent = "/tmp".into();
    }
    let made = tempfile::Builder::new().prefix("hf-").tempdir_in(&parent);
    let dir = about(&parent, "make a directory in", made)?;
    owner.take(dir.path())?;
    owner.check_reaches(dir.path())?;
    Ok(dir)
}

/// The file system in memory, where it has room.
fn memory_dir() -> Option<PathBuf> {
    let dir = Path::new("/dev/shm");
    let stat = rustix::fs::statvfs(dir).ok()?;
    let writable = tempfile::tempfile_in(dir).is_ok();
    let free_bytes = stat.f_bavail.saturating_mul(stat.f_frsize);
    (writable && free_bytes >= MIN_FREE_MEMORY_BYTES).then(|| dir.to_owned())
}
