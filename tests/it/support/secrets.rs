//! Files that hold a secret: for their owner's eyes alone, or they are refused.

use std::{fs, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::Path};

/// Writes such a file, in the place of one that is there.
pub(crate) fn write_secret(path: impl AsRef<Path>, text: impl AsRef<[u8]>) {
    let path = path.as_ref();
    let _ = fs::remove_file(path);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.as_mut().unwrap().write_all(text.as_ref()).unwrap();
}
