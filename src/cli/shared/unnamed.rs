//! Files without a name: for this program alone, and gone when it ends, however it ends.

use std::{
    fs::{File, Permissions},
    io,
    os::unix::fs::PermissionsExt as _,
};

/// Makes one.
pub(in crate::cli) fn unnamed() -> io::Result<File> {
    let file = tempfile::tempfile()?;
    // Who could open it by its number must be its owner.
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}
