//! Where a file comes from: a name, or `-` for standard input.

use std::{
    fs::{self, File},
    io::{self, IsTerminal as _, Read, Seek as _},
    os::unix::fs::FileTypeExt as _,
    path::Path,
};

use anyhow::Context as _;

pub(crate) use crate::cli::shared::input_name::shown;
use crate::cli::shared::{input_name::is_stdin, output::note, unnamed::unnamed};

/// Opens what is read once.
pub(crate) fn open(path: &Path) -> anyhow::Result<Box<dyn Read + Send>> {
    if is_stdin(path) {
        return Ok(Box::new(stdin()));
    }
    let file = File::open(path).with_context(|| format!("cannot open the file {}", shown(path)))?;
    Ok(Box::new(file))
}

/// Opens what is read more than once. Standard input and pipes are copied first, to a file that only this program can
/// read, and that has no name: it is gone when the program ends, however it ends.
pub(crate) fn open_to_read_again(path: &Path) -> anyhow::Result<File> {
    let shown = shown(path);
    let cannot = || format!("cannot open the file {shown}");
    if is_stdin(path) {
        return copy(stdin()).with_context(|| format!("cannot read {shown}"));
    }
    let kind = fs::metadata(path).with_context(cannot)?.file_type();
    anyhow::ensure!(
        kind.is_file() || kind.is_fifo(),
        "{shown} is not a file: name a file, a pipe, or - for standard input"
    );
    let file = File::open(path).with_context(cannot)?;
    if kind.is_fifo() {
        copy(file).with_context(|| format!("cannot read {shown}"))
    } else {
        Ok(file)
    }
}

fn stdin() -> io::Stdin {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        note("reading the file from this terminal; Ctrl-D ends it");
    }
    stdin
}

fn copy(mut from: impl Read) -> anyhow::Result<File> {
    let mut file = unnamed().context("no temporary file can be made for a copy")?;
    io::copy(&mut from, &mut file).context("it cannot be copied to a temporary file")?;
    file.rewind()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;

    #[test]
    fn a_copy_has_no_name_and_is_for_its_owner_alone() {
        let mut copy = copy(&b"code\nABCD-1\n"[..]).unwrap();
        let there = copy.metadata().unwrap();
        assert_eq!((there.nlink(), there.permissions().mode() & 0o777), (0, 0o600));
        let mut text = String::new();
        copy.read_to_string(&mut text).unwrap();
        assert_eq!(text, "code\nABCD-1\n");
    }
}
