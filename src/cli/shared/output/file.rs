//! A file of results. What was there is replaced when all is written, and not before.
//!
//! Rows are written to a temporary file beside the target, which is renamed over it in the end. When a
//! run fails half-way, the target stays as it was. The temporary file is kept under its own name
//! (`FILE.XXXXXX.partial`), so that no row is lost. Devices, pipes and names of open descriptors
//! (`/dev/stdout`) are written directly: there is nothing to replace.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, Metadata, OpenOptions, Permissions, TryLockError},
    io::{self, Write},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown},
    },
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use rustix::fs::{Access, OFlags, access};
use tempfile::{Builder, NamedTempFile};

use super::Sink;
use crate::cli::shared::input_name::{is_stdin, shown as shown_input};

/// How many symbolic links are followed, one after another.
const MAX_LINKS: usize = 40;
/// The longest name of a target that the temporary file's name repeats, in bytes: names have at most
/// 255.
const MAX_NAME_BYTES: usize = 200;
const SUFFIX: &str = ".partial";

/// A file to write results to, checked and not yet touched.
pub(crate) struct Target {
    /// As it was given.
    name: PathBuf,
    kind: Kind,
}

enum Kind {
    /// A file or the name of a new one, behind all symbolic links; and what is there.
    File(PathBuf, Option<Metadata>),
    /// A device or a pipe.
    Special,
    /// The name of an open descriptor, such as `/dev/stdout`, that is a file.
    Descriptor,
}

impl Target {
    /// Checks that results can be written there, and that none of the inputs is there. Touches nothing.
    pub(crate) fn check(name: &Path, inputs: &[&Path]) -> anyhow::Result<Self> {
        let shown = name.display();
        let cannot = || format!("the results cannot be written to {shown}");
        anyhow::ensure!(!name.as_os_str().is_empty(), "--output must name a file");
        let there = match fs::metadata(name) {
            Ok(there) => Some(there),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(cannot),
        };
        let is_folder = there.as_ref().is_some_and(Metadata::is_dir)
            || name.as_os_str().as_bytes().ends_with(b"/");
        anyhow::ensure!(!is_folder, "--output {shown} is a folder: name a file in it");
        let Some(there) = there else {
            let folder = folder_of(name);
            anyhow::ensure!(
                folder.is_dir(),
                "--output {shown}: there is no folder {}",
                folder.display()
            );
            let target = resolve(name).with_context(cannot)?;
            let target = target.with_context(|| format!("--output {shown} is not a file"))?;
            // One of them may be made, such as a key.
            if let Some(input) = inputs.iter().find(|input| names(input, &target)) {
                anyhow::bail!(is_input(name, input));
            }
            access(folder_of(&target), Access::WRITE_OK | Access::EXEC_OK).with_context(cannot)?;
            return Ok(Self { name: name.to_owned(), kind: Kind::File(target, None) });
        };
        if let Some(input) = inputs.iter().find(|input| is_input_at(&there, input)) {
            anyhow::bail!(is_input(name, input));
        }
        access(name, Access::WRITE_OK).with_context(cannot)?;
        let kind = if !there.is_file() {
            Kind::Special
        } else {
            match resolve(name).with_context(cannot)? {
                Some(path) => Kind::File(path, Some(there)),
                None => Kind::Descriptor,
            }
        };
        Ok(Self { name: name.to_owned(), kind })
    }

    /// Opens it. What is there stays until [`Draft::publish`]; without a draft, what is
    /// written goes there directly.
    pub(crate) fn open(self) -> anyhow::Result<(Sink, Option<Draft>)> {
        let cannot = || format!("the results cannot be written to {}", self.name.display());
        let mut options = OpenOptions::new();
        let (path, there) = match &self.kind {
            Kind::File(path, there) => (path, there.as_ref()),
            Kind::Special => {
                let file = options.write(true).open(&self.name).with_context(cannot)?;
                return Ok((Sink::direct(file), None));
            }
            Kind::Descriptor => {
                let file = options.append(true).open(&self.name).with_context(cannot)?;
                return Ok((Sink::direct(file), None));
            }
        };
        let lock = Lock::take(path, &self.name)?;
        let file = temporary(path, there).with_context(cannot)?;
        let keeps_owner = there.is_none_or(|there| take_over(file.as_file(), there));
        let rows = file.as_file().try_clone().with_context(cannot)?;
        let draft = Draft {
            file,
            target: path.clone(),
            is_new: there.is_none(),
            in_place: !keeps_owner,
            name: self.name,
            _lock: lock,
        };
        Ok((Sink::over(WholeWrites { file: rows, bytes: 0 }), Some(draft)))
    }
}

/// Refuses to write to standard output where that is a file which is read: `… FILE >> FILE`.
pub(crate) fn check_stdout(input: &Path) -> anyhow::Result<()> {
    let stdout = rustix::fs::fstat(io::stdout());
    let Ok(stdout) = stdout else { return Ok(()) };
    anyhow::ensure!(
        file_at(input).is_none_or(|input| input != id_of(&stdout)),
        "standard output is the file {}, which is read: write the results to another file",
        shown_input(input)
    );
    Ok(())
}

fn is_input(output: &Path, input: &Path) -> String {
    format!(
        "--output {} is the same file as {}, which is read: name another file for the results",
        output.display(),
        shown_input(input)
    )
}

/// Whether an input, which need not be there, has the resolved name.
fn names(input: &Path, target: &Path) -> bool {
    !is_stdin(input) && resolve(input).ok().flatten().is_some_and(|input| input == target)
}

/// The file that an input is; `None` where it is none, such as a pipe. `-` is standard input.
fn file_at(input: &Path) -> Option<(u64, u64)> {
    if is_stdin(input) {
        let there = rustix::fs::fstat(io::stdin()).ok()?;
        let kind = rustix::fs::FileType::from_raw_mode(there.st_mode);
        return (kind == rustix::fs::FileType::RegularFile).then(|| id_of(&there));
    }
    fs::metadata(input).ok().filter(Metadata::is_file).map(|there| id(&there))
}

// The types of these fields differ from system to system.
#[allow(clippy::useless_conversion, clippy::unnecessary_cast, reason = "not everywhere")]
fn id_of(there: &rustix::fs::Stat) -> (u64, u64) {
    (there.st_dev as u64, there.st_ino as u64)
}

fn id(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// Whether a file is an input. `-` is standard input, where that is a file.
fn is_input_at(file: &Metadata, input: &Path) -> bool {
    if is_stdin(input) { file_at(input) == Some(id(file)) } else { is_at(file, input) }
}

/// Whether a file is the one of that name, under whichever name.
fn is_at(file: &Metadata, name: &Path) -> bool {
    fs::metadata(name).is_ok_and(|there| id(&there) == id(file))
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The name behind all symbolic links, which need not be there; `None` for an open descriptor's.
fn resolve(name: &Path) -> io::Result<Option<PathBuf>> {
    let mut path = name.to_owned();
    for _ in 0..MAX_LINKS {
        let folder = folder_of(&path).canonicalize()?;
        if folder.starts_with("/proc") || folder.starts_with("/dev/fd") {
            return Ok(None);
        }
        let Some(last) = path.file_name() else { return Ok(None) };
        path = folder.join(last);
        match fs::symlink_metadata(&path) {
            Ok(there) if there.is_symlink() => path = folder.join(fs::read_link(&path)?),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => return Ok(Some(path)),
        }
    }
    Err(io::Error::other("too many symbolic links"))
}

/// Makes the temporary file: beside the target; or, where that is not allowed and there is a file
/// which can be written to, in the folder for such files.
fn temporary(target: &Path, there: Option<&Metadata>) -> io::Result<NamedTempFile> {
    let last = target.file_name().unwrap_or_default();
    let short = last.as_bytes().len() <= MAX_NAME_BYTES;
    let mut prefix = if short { last.to_owned() } else { OsString::from("results") };
    prefix.push(".");
    // A new file's are cut by the umask, as those of any other; an old file's are set below.
    let mode = if there.is_some() { 0o600 } else { 0o666 };
    let make = |folder: &Path| {
        let mut builder = Builder::new();
        builder.prefix(&prefix).suffix(SUFFIX).permissions(Permissions::from_mode(mode));
        builder.tempfile_in(folder)
    };
    match make(folder_of(target)) {
        Err(_) if there.is_some() => make(&std::env::temp_dir()),
        made => made,
    }
}

/// Gives the temporary file the owner, the group and the permissions of the file that it replaces.
/// Answers whether it could.
fn take_over(file: &File, there: &Metadata) -> bool {
    let is_alike =
        file.metadata().is_ok_and(|made| (made.uid(), made.gid()) == (there.uid(), there.gid()));
    (is_alike || fchown(file, Some(there.uid()), Some(there.gid())).is_ok())
        && file.set_permissions(Permissions::from_mode(there.mode() & 0o7777)).is_ok()
}

/// Results that are being written, and the file that they are to be.
pub(crate) struct Draft {
    file: NamedTempFile,
    target: PathBuf,
    /// The target as it was given.
    name: PathBuf,
    /// Whether nothing was there.
    is_new: bool,
    /// Whether the target must be written to, because another file would have another owner.
    in_place: bool,
    /// Other runs are kept from the target until this one has ended.
    _lock: Lock,
}

impl Draft {
    /// Replaces the target by the results. If that fails, they are kept.
    pub(crate) fn publish(self) -> anyhow::Result<()> {
        // The lock is held to the end.
        let Self { file, target, name, in_place, _lock, .. } = self;
        // An error that the system held back is told here.
        let synced = file.as_file().sync_all();
        let (file, moved) = match (synced, in_place) {
            (Err(error), _) => (file, Err(error)),
            (Ok(()), true) => {
                let copied = copy(file.path(), &target);
                (file, copied)
            }
            (Ok(()), false) => match file.persist(&target) {
                Ok(_) => return Ok(()),
                // A file that is mounted by itself, or another user's in a shared folder.
                Err(refused) => {
                    let copied = copy(refused.file.path(), &target);
                    (refused.file, copied)
                }
            },
        };
        moved.with_context(|| match file.keep() {
            Ok((_, kept)) => format!(
                "the results are whole in {}, and cannot replace {}",
                kept.display(),
                name.display()
            ),
            Err(_) => format!("the results cannot replace {}", name.display()),
        })
    }

    /// Keeps what was written of a run that failed, and says where; `None` if nothing was. Where nothing is replaced by it,
    /// results that have a row for everything are put where they belong.
    pub(crate) fn keep(self, is_whole: bool) -> Option<String> {
        if is_whole && self.is_new && !self.target.exists() {
            let told = format!("the results so far are in {}", self.name.display());
            return Some(self.publish().map_or_else(|error| format!("{error:#}"), |()| told));
        }
        let is_empty = self.file.as_file().metadata().is_ok_and(|file| file.len() == 0);
        let (_, kept) = if is_empty { None } else { self.file.keep().ok() }?;
        Some(format!(
            "the results so far are in {}; {} was left as it was",
            kept.display(),
            self.name.display()
        ))
    }

    /// Where it is being written.
    pub(crate) fn path(&self) -> PathBuf {
        self.file.path().to_owned()
    }
}

/// A lock on a target: two runs that write to one would each take the other's results away.
///
/// It is a file of its own beside the target, since that is replaced by another file. Where none can be made, it is the
/// target itself, which is written in place there.
struct Lock {
    file: File,
    /// Its name, where it is a file of its own.
    own: Option<PathBuf>,
}

impl Lock {
    fn take(target: &Path, name: &Path) -> anyhow::Result<Self> {
        let whole = target.file_name().unwrap_or_default().as_bytes();
        let mut last = OsString::from(".");
        last.push(OsStr::from_bytes(&whole[..whole.len().min(MAX_NAME_BYTES)]));
        last.push(".lock");
        let own = target.with_file_name(last);
        let refused = || {
            format!(
                "another run is writing its results to {}: wait for it, or name another file for the results",
                name.display()
            )
        };
        let cannot =
            || format!("{} cannot be locked with the file {}", name.display(), own.display());
        loop {
            let made = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                // Another user's link or pipe of this name is neither followed nor waited for.
                .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
                .open(&own);
            let there = fs::symlink_metadata(&own);
            anyhow::ensure!(
                there.map_or(true, |there| there.is_file()),
                "{} is not a file: it is in the place of the lock on {}, take it away",
                own.display(),
                name.display()
            );
            let (file, own) = match made {
                Ok(file) => (file, Some(&own)),
                Err(_) => match OpenOptions::new().append(true).open(target) {
                    Ok(file) => (file, None),
                    Err(error) => return Err(error).with_context(cannot),
                },
            };
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => anyhow::bail!(refused()),
                Err(TryLockError::Error(error)) => return Err(error).with_context(cannot),
            }
            // The run before may have taken the file away between the two.
            let there = file.metadata().context("the lock cannot be read")?;
            if own.is_none_or(|own| is_at(&there, own)) {
                return Ok(Self { file, own: own.cloned() });
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // One that has something in it is somebody's.
        let is_empty = self.file.metadata().is_ok_and(|file| file.len() == 0);
        if let Some(own) = self.own.as_ref().filter(|_| is_empty) {
            // It is still locked. One that stays locks nobody out.
            let _ = fs::remove_file(own);
        }
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut to = OpenOptions::new().write(true).create(true).truncate(true).open(to)?;
    io::copy(&mut File::open(from)?, &mut to)?;
    to.sync_all()
}

/// A new file that ends with a whole write, also when the disk is full.
struct WholeWrites {
    file: File,
    bytes: u64,
}

impl Write for WholeWrites {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.file.write_all(bytes) {
            Ok(()) => {
                self.bytes += bytes.len() as u64;
                Ok(bytes.len())
            }
            Err(error) => {
                let _ = self.file.set_len(self.bytes);
                Err(error)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests;
