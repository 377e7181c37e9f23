//! The file of the secret keys: read, and made where there is none.

use std::{
    collections::HashMap,
    fs,
    io::{ErrorKind, Write as _},
    path::Path,
};

use anyhow::{Context as _, bail};
use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use chacha20poly1305::aead::Generate as _;
use secrecy::{
    ExposeSecret as _, SecretBox,
    zeroize::{Zeroize as _, Zeroizing},
};

use super::{KEY_BYTES, Master};
use crate::{domain::secret_key::KeyId, secret_file};

/// The name of the file that [`create_beside`] makes.
pub const FILE_NAME: &str = "secret.key";

/// What the file is called in errors.
const WHAT: &str = "the secret key file";

/// Base64 in the usual alphabet, with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Reads the keys of a file, in its order.
///
/// # Errors
/// When the file cannot be read, others can read or write it, or it holds anything else. All that is wrong is told at
/// once, and what the file holds is never in the error.
pub(super) fn read(path: &Path) -> anyhow::Result<Vec<(KeyId, Master)>> {
    parse(path, &secret_file::read(path, WHAT)?)
}

/// As [`read`], without warnings, for a file that was read before.
pub(super) fn read_again(path: &Path) -> anyhow::Result<Vec<(KeyId, Master)>> {
    parse(path, &secret_file::read_quietly(path, WHAT)?.0)
}

/// Makes `secret.key` in an existing directory, for its owner's eyes alone, when there is none. Programs that start at
/// the same time get the same key.
///
/// # Errors
/// When the file cannot be made.
pub(super) fn create_beside(dir: &Path) -> anyhow::Result<()> {
    let path = dir.join(FILE_NAME);
    let there = path.try_exists().with_context(|| {
        format!("cannot find out whether there is a secret key file {}", path.display())
    })?;
    if there {
        return Ok(());
    }
    write_new(dir, &path)
        .with_context(|| format!("cannot make the secret key file {}", path.display()))
}

fn parse(path: &Path, text: &str) -> anyhow::Result<Vec<(KeyId, Master)>> {
    if let Some(master) = parse_master(text.trim()) {
        return Ok(vec![(KeyId::FIRST, master)]);
    }
    if !text.contains(':') {
        bail!(
            "the secret key file {} must hold 32 random bytes in hex (64 digits) or base64, or lines `ID: KEY`; \
             `openssl rand -hex 32` makes such bytes",
            path.display()
        )
    }
    let mut read = Reading::default();
    for (place, line) in text.lines().enumerate() {
        read.line(place + 1, line.trim());
    }
    if read.keys.is_empty() && read.faults.is_empty() {
        read.faults.push("it has no key".to_owned());
    }
    if read.faults.is_empty() {
        return Ok(read.keys);
    }
    bail!("the secret key file {} cannot be used: {}", path.display(), read.faults.join("; "))
}

/// What was read of a file so far.
#[derive(Default)]
struct Reading {
    keys: Vec<(KeyId, Master)>,
    lines: HashMap<KeyId, usize>,
    faults: Vec<String>,
}

impl Reading {
    fn line(&mut self, number: usize, line: &str) {
        if line.is_empty() || line.starts_with('#') {
            return;
        }
        let Some((id, key)) = line.split_once(':') else {
            return self.fault(number, "must be `ID: KEY`, or begin with '#'");
        };
        let (id, key) = (KeyId::parse(id.trim_end()), parse_master(key.trim()));
        if let Err(rule) = &id {
            self.fault(number, &format!("the id {rule}"));
        }
        if key.is_none() {
            self.fault(number, "the key must be 32 bytes in hex (64 digits) or base64");
        }
        let (Ok(id), Some(key)) = (id, key) else { return };
        if let Some(other) = self.lines.insert(id, number) {
            return self.fault(number, &format!("the id {id} is on line {other} already"));
        }
        let is_same = |(_, other): &&(KeyId, Master)| other.expose_secret() == key.expose_secret();
        if let Some((other, _)) = self.keys.iter().find(is_same) {
            return self.fault(number, &format!("the key is that of id {other}"));
        }
        self.keys.push((id, key));
    }

    fn fault(&mut self, line: usize, what: &str) {
        self.faults.push(format!("line {line}: {what}"));
    }
}

fn parse_master(text: &str) -> Option<Master> {
    let decoded =
        if text.len() == 2 * KEY_BYTES { hex::decode(text).ok() } else { BASE64.decode(text).ok() };
    let decoded = Zeroizing::new(decoded?);
    let is_key = decoded.len() == KEY_BYTES;
    is_key.then(|| {
        SecretBox::init_with_mut(|master: &mut [u8; KEY_BYTES]| master.copy_from_slice(&decoded))
    })
}

/// Writes a new key to a temporary file and then renames it, unless somebody else was first. At no time is there
/// half a key, or one that others can read.
fn write_new(dir: &Path, path: &Path) -> std::io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    let mut text = hex::encode(<[u8; KEY_BYTES]>::generate());
    let written = writeln!(file, "{text}");
    text.zeroize();
    written?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        Ok(_) => fs::File::open(dir)?.sync_all(),
        Err(refused) if refused.error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(refused) => Err(refused.error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "/etc/holdfast/keys";

    fn ids(text: &str) -> Vec<i32> {
        parse(Path::new(PATH), text).unwrap().iter().map(|(id, _)| id.number()).collect()
    }

    fn fault(text: &str) -> String {
        parse(Path::new(PATH), text).err().unwrap().to_string()
    }

    #[test]
    fn a_file_may_hold_one_key_in_hex_or_base64() {
        let base64 = BASE64.encode([0x5a; 32]);
        for text in ["5a".repeat(32), "5A".repeat(32), base64.trim_end_matches('=').into(), base64]
        {
            let keys = parse(Path::new(PATH), &format!(" {text}\r\n")).unwrap();
            assert_eq!(keys.len(), 1);
            assert_eq!((keys[0].0, keys[0].1.expose_secret()), (KeyId::FIRST, &[0x5a; 32]));
        }
    }

    #[test]
    fn a_file_may_hold_keys_by_their_ids() {
        let (a, b) = ("5a".repeat(32), BASE64.encode([1; 32]));
        assert_eq!(ids(&format!("# of May\n 20 : {a} \r\n\n  # of old\n1:{b}\n")), [20, 1]);
        assert_eq!(ids(&format!("3: {a}")), [3]);
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once_by_line_and_nothing_that_the_file_holds() {
        let (a, b) = ("5a".repeat(32), "5b".repeat(32));
        let told = fault(&format!(
            "# hunter0: x\n1: {a}\nhunter1\n0: {b}\nx: {b}\n2: hunter2\n1: {b}\n4: {a}\n:\n"
        ));
        for part in [
            "line 3: must be `ID: KEY`",
            "line 4: the id must be",
            "line 5: the id must be",
            "line 6: the key must be 32 bytes",
            "line 7: the id 1 is on line 2 already",
            "line 8: the key is that of id 1",
            "line 9: the id must be",
            "line 9: the key must be",
            PATH,
        ] {
            assert!(told.contains(part), "{part} is not in {told}");
        }
        for held in ["hunter", "5a5a", "5b5b", "line 1:", "line 2:"] {
            assert!(!told.contains(held), "{held} is in {told}");
        }
        assert!(fault("# no: key\n").contains("it has no key"));
    }

    #[test]
    fn a_file_that_holds_no_key_is_told_how_one_is_made() {
        for text in ["hunter2", "", &"zz".repeat(32), &"5a".repeat(31), &"5a".repeat(600)] {
            let told = fault(text);
            assert!(told.contains("64 digits") && told.contains("openssl"), "{told}");
            assert!(text.is_empty() || !told.contains(text), "{told}");
        }
    }
}
