//! Secrets of providers: `secret.NAME` of a profile is the file `NAME` in the folder of that provider's id.
//!
//! A file is read again when it changes, so that a secret can be changed while servers run. To see that it did not
//! change is one `stat`, which each request can afford.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt, fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use secrecy::zeroize::Zeroizing;

use crate::{domain::id::ProviderId, secret_file};

/// A file that changed within this time is read each time: it may change again without another time of change.
const YOUNG: Duration = Duration::from_secs(2);

/// The secrets of one provider. Cheap to clone. Never printed.
#[derive(Clone)]
pub struct Secrets {
    /// Where this provider's are; `None` when the server has no folder of secrets.
    folder: Option<PathBuf>,
    read: Arc<Mutex<HashMap<String, Kept>>>,
}

/// A secret as it was read.
struct Kept {
    stamp: Stamp,
    text: Zeroizing<String>,
}

/// What of a file changes when it is written or replaced.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    /// The time of change too: a copy may keep the other one.
    changed: (i64, i64),
}

impl Secrets {
    /// The secrets of a provider in `dir`, the folder of all providers' secrets.
    pub fn new(dir: Option<PathBuf>, provider_id: &ProviderId) -> Self {
        // An id of a provider is letters, digits and '-', so the folder is one in `dir`.
        let folder = dir.map(|dir| dir.join(provider_id.as_str()));
        Self { folder, read: Arc::default() }
    }

    /// The secrets of these names, as their files are now.
    ///
    /// # Errors
    /// What is wrong with each that cannot be used, in the order of the names. Never what a file holds.
    pub fn read(&self, names: &BTreeSet<String>) -> Result<BTreeMap<String, String>, Vec<String>> {
        self.read_at(names, SystemTime::now())
    }

    fn read_at(
        &self,
        names: &BTreeSet<String>,
        now: SystemTime,
    ) -> Result<BTreeMap<String, String>, Vec<String>> {
        let mut secrets = BTreeMap::new();
        let mut missing = Vec::new();
        for name in names {
            match self.read_one(name, now) {
                Ok(secret) => drop(secrets.insert(name.clone(), secret)),
                Err(why) => missing.push(format!("secret.{name} {why}")),
            }
        }
        if missing.is_empty() { Ok(secrets) } else { Err(missing) }
    }

    fn read_one(&self, name: &str, now: SystemTime) -> Result<String, String> {
        if !is_name(name) {
            return Err("cannot be the name of a file".to_owned());
        }
        let Some(folder) = &self.folder else {
            return Err("is missing: this server has no HOLDFAST_SECRETS_DIR".to_owned());
        };
        let path = folder.join(name);
        let stamp = stamp(&path)?;
        let mut kept = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let before = kept.get(name).filter(|kept| kept.stamp == stamp);
        if let Some(before) = before.filter(|_| !stamp.is_young(now)) {
            return Ok(before.text.to_string());
        }
        let what = format!("secret.{name}");
        let (text, warning) = secret_file::read_quietly(&path, "the file")
            .map_err(|error| format!("cannot be used: {error:#}"))?;
        let text = Zeroizing::new(without_line_end(&text).to_owned());
        if text.is_empty() {
            return Err(format!("cannot be used: the file {} is empty", path.display()));
        }
        if let (None, Some(why)) = (before, warning) {
            secret_file::warn(&path, &what, why);
        }
        let secret = text.to_string();
        kept.insert(name.to_owned(), Kept { stamp, text });
        Ok(secret)
    }
}

/// The names are not secret; what they stand for is left out.
impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// Templates cannot name others. With neither '/' nor a '.' in front, none leads out of its folder.
fn is_name(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        && !name.starts_with('.')
}

/// What tells one content of a file from another. Before anything is opened: to open a pipe may take for ever.
fn stamp(path: &Path) -> Result<Stamp, String> {
    let metadata = fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            format!("is missing on this server: there is no file {}", path.display())
        }
        _ => format!("cannot be used: the file {} cannot be read: {error}", path.display()),
    })?;
    if !metadata.is_file() {
        return Err(format!("cannot be used: {} is no file", path.display()));
    }
    Ok(Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        bytes: metadata.len(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

impl Stamp {
    /// Whether the file changed just now, or later than now by this machine's clock.
    fn is_young(self, now: SystemTime) -> bool {
        let changed = u64::try_from(self.changed.0).unwrap_or_default();
        let changed = UNIX_EPOCH + Duration::from_secs(changed);
        now.duration_since(changed).map_or(true, |age| age < YOUNG)
    }
}

fn without_line_end(text: &str) -> &str {
    let line = text.strip_suffix('\n');
    line.map_or(text, |line| line.strip_suffix('\r').unwrap_or(line))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn provider() -> ProviderId {
        ProviderId::parse("shop").unwrap()
    }

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn put(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
        let folder = dir.join("shop");
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join(name);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    fn one(secrets: &Secrets, name: &str) -> Result<String, String> {
        let read = secrets.read(&names(&[name]));
        read.map(|mut read| read.remove(name).unwrap()).map_err(|why| why.concat())
    }

    #[test]
    fn a_secret_is_its_file_without_one_line_end() {
        let dir = tempfile::tempdir().unwrap();
        let secrets = Secrets::new(Some(dir.path().to_owned()), &provider());
        for (bytes, secret) in [
            ("hush", "hush"),
            ("hush\n", "hush"),
            ("hush\r\n", "hush"),
            ("hush\n\n", "hush\n"),
            (" hush \n", " hush "),
            ("hush\r", "hush\r"),
            ("a\nb\n", "a\nb"),
        ] {
            put(dir.path(), "key", bytes.as_bytes());
            assert_eq!(one(&secrets, "key").unwrap(), secret, "{bytes:?}");
        }
    }

    #[test]
    fn a_secret_that_changes_is_read_again_also_at_the_same_length() {
        let dir = tempfile::tempdir().unwrap();
        let secrets = Secrets::new(Some(dir.path().to_owned()), &provider());
        for n in 0..200 {
            let secret = format!("secret {n:03}");
            put(dir.path(), "key", secret.as_bytes());
            assert_eq!(one(&secrets, "key").unwrap(), secret);
        }
        // As orchestrators do it: a link that is replaced.
        let folder = dir.path().join("shop");
        for n in 0..50 {
            put(dir.path(), &format!("of-{n}"), format!("linked {n:03}").as_bytes());
            symlink(folder.join(format!("of-{n}")), folder.join("new")).unwrap();
            fs::rename(folder.join("new"), folder.join("link")).unwrap();
            assert_eq!(one(&secrets, "link").unwrap(), format!("linked {n:03}"));
        }
        fs::remove_file(folder.join("key")).unwrap();
        assert!(one(&secrets, "key").unwrap_err().contains("there is no file"));
    }

    #[test]
    fn a_file_is_read_once_when_it_did_not_change_lately() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "key", b"hush");
        let secrets = Secrets::new(Some(dir.path().to_owned()), &provider());
        let read = |now| secrets.read_at(&names(&["key"]), now).unwrap().remove("key").unwrap();
        let (now, later) = (SystemTime::now(), SystemTime::now() + Duration::from_secs(10));
        assert_eq!(read(later), "hush");
        // What is kept differs now from the file, which tells the two apart.
        let keep = |text: &str| {
            secrets.read.lock().unwrap().get_mut("key").unwrap().text =
                Zeroizing::new(text.to_owned());
        };
        keep("kept");
        assert_eq!(read(later), "kept");
        assert_eq!(read(now), "hush", "it changed a moment ago");
        keep("kept");
        assert_eq!(read(now - Duration::from_secs(1000)), "hush", "the clock is behind");
    }

    #[test]
    fn all_that_is_missing_is_told_at_once_and_nothing_that_a_file_holds() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "fine", b"hush-1");
        put(dir.path(), "bytes", b"hush-2\xff");
        put(dir.path(), "empty", b"\n");
        put(dir.path(), "long", &b"hush-3".repeat(20_000));
        let open = put(dir.path(), "open", b"hush-4");
        fs::set_permissions(&open, fs::Permissions::from_mode(0o606)).unwrap();
        fs::create_dir(dir.path().join("shop/folder")).unwrap();
        let secrets = Secrets::new(Some(dir.path().to_owned()), &provider());
        let asked = names(&["fine", "bytes", "empty", "long", "open", "folder", "none"]);
        let why = secrets.read(&asked).unwrap_err();
        assert_eq!(why.len(), 6, "{why:?}");
        for (name, part) in [
            ("bytes", "UTF-8"),
            ("empty", "is empty"),
            ("long", "longer"),
            ("open", "every user of this machine can write it"),
            ("folder", "is no file"),
            ("none", "there is no file"),
        ] {
            let start = format!("secret.{name} ");
            assert!(why.iter().any(|it| it.starts_with(&start) && it.contains(part)), "{why:?}");
        }
        let told = format!("{why:?} {secrets:?}");
        assert!(!told.contains("hush"), "{told}");
        assert_eq!(one(&secrets, "fine").unwrap(), "hush-1");
        assert!(!format!("{secrets:?}").contains("hush"));
    }

    #[test]
    fn a_server_without_a_folder_has_no_secrets() {
        let secrets = Secrets::new(None, &provider());
        assert!(one(&secrets, "key").unwrap_err().contains("HOLDFAST_SECRETS_DIR"));
        assert_eq!(secrets.read(&BTreeSet::new()), Ok(BTreeMap::new()));
    }

    #[test]
    fn a_name_never_leaves_the_folder_of_its_provider() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "key", b"hush");
        fs::create_dir(dir.path().join("other")).unwrap();
        fs::write(dir.path().join("other/key"), "other's").unwrap();
        fs::write(dir.path().join("above"), "above").unwrap();
        let secrets = Secrets::new(Some(dir.path().to_owned()), &provider());
        let long = "x".repeat(129);
        for name in ["../other/key", "../above", "..", ".", "", "/etc/hostname", "a/b", &long] {
            let why = one(&secrets, name).unwrap_err();
            assert!(why.contains("cannot be the name of a file"), "{name}: {why}");
        }
        for id in ["..", ".", "a/b", "", "A"] {
            assert!(ProviderId::parse(id).is_err(), "{id}");
        }
    }
}
