//! Codes that an API tells again: encrypted in the ledger, so that the ledger can be handed around. The key is a file
//! beside it.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    path::Path,
};

use anyhow::Context as _;
use chacha20poly1305::{
    KeyInit as _, XChaCha20Poly1305, XNonce,
    aead::{Aead as _, Generate as _},
};

const NONCE_BYTES: usize = 24;

/// Seals codes, and opens them.
pub(super) struct Vault(XChaCha20Poly1305);

impl Vault {
    /// Reads the key beside the ledger, or makes one.
    pub(super) fn open(ledger: &Path) -> anyhow::Result<Self> {
        let mut path = ledger.as_os_str().to_owned();
        path.push(".key");
        let path = Path::new(&path);
        read_or_make(path).with_context(|| format!("the key file {}", path.display()))
    }

    /// The code in hex, with a nonce before it.
    pub(super) fn seal(&self, code: &str) -> String {
        let nonce = XNonce::generate();
        // It fails beyond 256 GiB alone, and requests are short.
        let sealed = self.0.encrypt(&nonce, code.as_bytes()).unwrap_or_default();
        hex::encode([nonce.as_slice(), &sealed].concat())
    }

    /// The code that was sealed with the same key.
    pub(super) fn open_sealed(&self, sealed: &str) -> Option<String> {
        let bytes = hex::decode(sealed).ok()?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE_BYTES)?;
        let opened = self.0.decrypt(&XNonce::try_from(nonce).ok()?, sealed).ok()?;
        String::from_utf8(opened).ok()
    }
}

fn read_or_make(path: &Path) -> anyhow::Result<Vault> {
    if !path.exists() {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut half = path.as_os_str().to_owned();
        half.push(".new");
        let half = Path::new(&half);
        // One that a crash left behind was never used.
        let _ = fs::remove_file(half);
        let mut file = options.open(half)?;
        file.write_all(hex::encode(<[u8; 32]>::generate()).as_bytes())?;
        file.sync_all()?;
        fs::rename(half, path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    let mut key = [0; 32];
    hex::decode_to_slice(fs::read_to_string(path)?.trim(), &mut key).context("is not a key")?;
    Ok(Vault(XChaCha20Poly1305::new(&key.into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_code_opens_with_the_same_key_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (ledger, other) = (dir.path().join("ledger"), dir.path().join("other"));
        let sealed = Vault::open(&ledger).unwrap().seal("CODE-1");
        assert!(!sealed.contains("CODE"));
        assert_eq!(Vault::open(&ledger).unwrap().open_sealed(&sealed).as_deref(), Some("CODE-1"));
        assert_eq!(Vault::open(&other).unwrap().open_sealed(&sealed), None);
        assert_eq!(Vault::open(&ledger).unwrap().open_sealed("12"), None);
    }
}
