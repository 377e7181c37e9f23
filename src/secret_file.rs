//! Files that hold a secret: read, and never more open than they should be.
//!
//! Others are neither the owner nor in the file's group. Who can read such a file knows the secret, and who can write
//! it decides what the secret is: both are refused, and no setting allows them. A group may read: secrets are often
//! mounted as root's, for the group that the program runs as.

use std::{fs, io::Read as _, os::unix::fs::PermissionsExt as _, path::Path};

use anyhow::{Context as _, bail};
use secrecy::zeroize::Zeroizing;

/// No such file is longer.
const MAX_BYTES: u64 = 64 * 1024;

const GROUP_CAN_WRITE: u32 = 0o020;
const OTHERS_CAN_WRITE: u32 = 0o002;
const OTHERS_CAN_READ: u32 = 0o004;
/// Of a folder: only the owner of a file may replace it.
const STICKY: u32 = 0o1000;

/// What the permissions of a file and of its folder say.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Fine,
    Warn(&'static str),
    Refuse(&'static str),
}

/// A file that is not read, because others can read or write it.
#[derive(Debug, thiserror::Error)]
#[error("{what} {path} is refused: {why}")]
pub struct TooOpen {
    what: String,
    path: String,
    why: &'static str,
}

/// Reads a file that holds a secret; `what` names it in errors, as in "the secret key file". The text is wiped when it
/// is dropped, and never in an error. Warns where it is more open than it should be.
///
/// # Errors
/// When it cannot be read, is not text, is longer than any secret, or others can read or write it.
pub fn read(path: &Path, what: &str) -> anyhow::Result<Zeroizing<String>> {
    let (text, warning) = read_quietly(path, what)?;
    if let Some(why) = warning {
        warn(path, what, why);
    }
    Ok(text)
}

/// As [`read`], without the warning, which is answered beside the text.
pub fn read_quietly(
    path: &Path,
    what: &str,
) -> anyhow::Result<(Zeroizing<String>, Option<&'static str>)> {
    let cannot_read = || format!("cannot read {what} {}", path.display());
    let file = fs::File::open(path).with_context(cannot_read)?;
    // Of what was opened: a link may lead elsewhere.
    let mode = file.metadata().with_context(cannot_read)?.permissions().mode();
    let warning = match judge(mode, is_open_to_all(folder_of(path))) {
        Verdict::Fine => None,
        Verdict::Warn(why) => Some(why),
        Verdict::Refuse(why) => {
            bail!(TooOpen { what: what.to_owned(), path: path.display().to_string(), why })
        }
    };
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_BYTES + 1).read_to_string(&mut text).with_context(cannot_read)?;
    if text.len() as u64 > MAX_BYTES {
        bail!("{what} {} is longer than {MAX_BYTES} bytes", path.display());
    }
    Ok((text, warning))
}

/// Warns of a file that is more open than it should be.
pub fn warn(path: &Path, what: &str, why: &str) {
    tracing::warn!(file = %path.display(), "{what} should be for its owner alone: {why}");
}

/// The folder that the path names its file in.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether every user of this machine can replace a file in this folder.
pub fn is_open_to_all(folder: &Path) -> bool {
    fs::metadata(folder).is_ok_and(|metadata| {
        let mode = metadata.permissions().mode();
        mode & OTHERS_CAN_WRITE != 0 && mode & STICKY == 0
    })
}

fn judge(mode: u32, is_replaceable: bool) -> Verdict {
    if mode & OTHERS_CAN_WRITE != 0 {
        Verdict::Refuse(
            "every user of this machine can write it (its permissions end in a 2, 3, 6 or 7). `chmod 0600` it, and \
             see that it still holds your secret",
        )
    } else if mode & OTHERS_CAN_READ != 0 {
        Verdict::Refuse(
            "every user of this machine can read it (its permissions end in a 4 or 5). `chmod 0600` it; a secret that \
             Kubernetes mounts needs `defaultMode: 0400`, or 0440 with an fsGroup",
        )
    } else if is_replaceable {
        Verdict::Warn("every user of this machine can replace it; `chmod o-w` its folder")
    } else if mode & GROUP_CAN_WRITE != 0 {
        Verdict::Warn("its group can write it; `chmod g-w` it")
    } else {
        Verdict::Fine
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_others_can_read_or_write_is_refused() {
        for mode in [0o602, 0o606, 0o666, 0o777, 0o100_646, 0o604, 0o644, 0o444, 0o100_755] {
            assert!(matches!(judge(mode, false), Verdict::Refuse(_)), "{mode:o}");
        }
    }

    #[test]
    fn a_file_that_others_can_replace_or_a_group_can_write_is_a_warning() {
        for mode in [0o620, 0o660] {
            assert!(matches!(judge(mode, false), Verdict::Warn(_)), "{mode:o}");
        }
        assert!(matches!(judge(0o600, true), Verdict::Warn(_)));
    }

    #[test]
    fn a_file_for_its_owner_or_for_a_group_to_read_is_fine() {
        for mode in [0o400, 0o600, 0o440, 0o640, 0o100_440] {
            assert_eq!(judge(mode, false), Verdict::Fine, "{mode:o}");
        }
    }

    #[test]
    fn a_folder_is_open_to_all_when_others_can_write_it_and_it_is_not_as_tmp_is() {
        let dir = tempfile::tempdir().unwrap();
        for (mode, open) in
            [(0o700, false), (0o755, false), (0o777, true), (0o1777, false), (0o703, true)]
        {
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(is_open_to_all(dir.path()), open, "{mode:o}");
        }
        assert_eq!(folder_of(Path::new("key")), Path::new("."));
        assert_eq!(folder_of(Path::new("/a/key")), Path::new("/a"));
    }

    #[test]
    fn what_a_file_holds_is_read_and_not_told_in_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let set_mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        fs::write(&path, "hush").unwrap();
        set_mode(0o600);
        assert_eq!(&*read(&path, "the file").unwrap(), "hush");
        for (mode, means) in [(0o666, "can write it"), (0o644, "defaultMode: 0400")] {
            set_mode(mode);
            let error = format!("{:#}", read(&path, "the file").unwrap_err());
            assert!(error.contains(means) && error.contains("chmod"), "{error}");
            assert!(!error.contains("hush"), "{error}");
        }
        fs::write(&path, "x".repeat(70_000)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(format!("{:#}", read(&path, "the file").unwrap_err()).contains("longer"));
    }
}
