//! The master secret, and what is derived from it: fingerprints of card codes, and the key that
//! codes and accounts' credentials are stored under.
//!
//! Changing anything here orphans what is stored: fingerprints no longer find duplicates, and codes
//! and credentials can no longer be read. The tests pin the values; a new scheme gets a new version byte and new
//! labels beside the old ones.

use std::{
    fmt, fs,
    io::{ErrorKind, Write as _},
    path::Path,
};

use anyhow::{Context as _, bail};
use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use chacha20poly1305::{
    KeyInit as _, XChaCha20Poly1305, XNonce,
    aead::{Aead as _, Generate as _, Payload},
};
use hmac::{Hmac, Mac as _};
use secrecy::{ExposeSecret as _, SecretBox, SecretString, zeroize::Zeroize as _};
use sha2::Sha256;

use crate::{
    domain::{
        credentials::Credentials,
        redemption::{AccountFacts, CardCode},
    },
    secret_file,
};

/// The name of the file that [`SecretKey::create_beside`] makes.
pub const FILE_NAME: &str = "secret.key";

/// The first byte of everything that is encrypted.
const VERSION: u8 = 1;

/// What stands before a code that is stored with other values. No code has it.
const WITH_FACTS: char = '\u{1}';

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;

const FINGERPRINT_LABEL: &[u8] = b"holdfast v1 fingerprint";
const ENCRYPTION_LABEL: &[u8] = b"holdfast v1 encryption";
const CHECK_LABEL: &[u8] = b"holdfast v1 check";

/// Base64 in the usual alphabet, with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Something stored that this key does not open: it was made with another key or for another purpose,
/// or it was damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what is stored cannot be decrypted: wrong key or purpose, or damaged")]
pub struct Undecryptable;

/// The keys derived from the master secret. Never printed, and wiped from memory when dropped.
pub struct SecretKey {
    fingerprint: SecretBox<[u8; KEY_BYTES]>,
    encryption: SecretBox<[u8; KEY_BYTES]>,
    check_value: [u8; 32],
}

impl SecretKey {
    /// Reads the master secret from a file: 32 bytes in hex or base64, with any space around them.
    ///
    /// # Errors
    /// When the file cannot be read, others can write it, or it holds anything else. What it holds is never in the
    /// error.
    pub fn from_file(path: &Path) -> anyhow::Result<Self> {
        let text = secret_file::read(path, "the secret key file")?;
        let Some(master) = parse_master(&text) else {
            bail!(
                "the secret key file {} must hold 32 random bytes in hex (64 digits) or base64; \
                 `openssl rand -hex 32` makes some",
                path.display()
            )
        };
        Ok(Self::derive(&master))
    }

    /// The key in `secret.key` of an existing directory; made there, for its owner's eyes alone,
    /// when there is none. Programs that start at the same time get the same key.
    ///
    /// # Errors
    /// When the file can be neither read nor made.
    pub fn create_beside(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join(FILE_NAME);
        let there = path.try_exists().with_context(|| {
            format!("cannot find out whether there is a secret key file {}", path.display())
        })?;
        if !there {
            write_new(dir, &path)
                .with_context(|| format!("cannot make the secret key file {}", path.display()))?;
        }
        Self::from_file(&path)
    }

    /// A key that nobody else has and nothing keeps: for data that is thrown away.
    pub fn ephemeral() -> Self {
        Self::derive(&SecretBox::new(Box::new(<[u8; KEY_BYTES]>::generate())))
    }

    fn derive(master: &SecretBox<[u8; KEY_BYTES]>) -> Self {
        let key = |label| SecretBox::new(Box::new(hmac_sha256(master.expose_secret(), &[label])));
        Self {
            fingerprint: key(FINGERPRINT_LABEL),
            encryption: key(ENCRYPTION_LABEL),
            check_value: hmac_sha256(master.expose_secret(), &[CHECK_LABEL]),
        }
    }

    /// Finds duplicates of a code without keeping it. It is the same for the same provider and code, in any
    /// spelling, and of no use without the key.
    pub fn fingerprint(&self, provider: &str, code: &CardCode) -> [u8; 32] {
        let code = code.normalised();
        let code = code.expose_secret().as_bytes();
        // With its length before it, no provider's end can pass for the beginning of a code.
        let provider_bytes = (provider.len() as u64).to_be_bytes();
        hmac_sha256(self.fingerprint.expose_secret(), &[&provider_bytes, provider.as_bytes(), code])
    }

    /// Encrypts a code for storage. `aad` names what it belongs to, and has to be given again to decrypt it. So a
    /// stored code cannot be moved to another row. The answer has at most 169 bytes.
    pub fn encrypt(&self, aad: &[u8], code: &CardCode) -> Vec<u8> {
        self.seal(aad, code.expose())
    }

    /// Decrypts what [`Self::encrypt`] made with the same key and the same `aad`.
    ///
    /// # Errors
    /// When it was made with another key or another `aad`, or was damaged.
    pub fn decrypt(&self, aad: &[u8], stored: &[u8]) -> Result<CardCode, Undecryptable> {
        Ok(self.decrypt_with(aad, stored)?.0)
    }

    /// Encrypts a code for storage with what else is to be sent with it, so that it can be sent again as it was.
    pub fn encrypt_with(&self, aad: &[u8], code: &CardCode, facts: &AccountFacts) -> Vec<u8> {
        if facts.is_empty() {
            return self.encrypt(aad, code);
        }
        let text = SecretString::from(format!(
            "{WITH_FACTS}{}",
            serde_json::json!({
                "code": code.expose(),
                "country": facts.country,
                "labels": facts.labels,
                "credentials": facts.credentials,
            })
        ));
        self.seal(aad, text.expose_secret())
    }

    /// Decrypts what [`Self::encrypt_with`] or [`Self::encrypt`] made with the same key and the same `aad`.
    ///
    /// # Errors
    /// When it was made with another key or another `aad`, or was damaged.
    pub fn decrypt_with(
        &self,
        aad: &[u8],
        stored: &[u8],
    ) -> Result<(CardCode, AccountFacts), Undecryptable> {
        let text = self.open(aad, stored)?;
        let Some(json) = text.expose_secret().strip_prefix(WITH_FACTS) else {
            let code = CardCode::parse(text.expose_secret()).map_err(|_| Undecryptable)?;
            return Ok((code, AccountFacts::default()));
        };
        let whole: serde_json::Value = serde_json::from_str(json).map_err(|_| Undecryptable)?;
        let texts = |name: &str| {
            let map = whole[name].as_object().into_iter().flatten();
            map.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
        };
        let code = CardCode::parse(whole["code"].as_str().ok_or(Undecryptable)?);
        let facts = AccountFacts {
            country: whole["country"].as_str().map(str::to_owned),
            labels: texts("labels"),
            credentials: texts("credentials"),
        };
        Ok((code.map_err(|_| Undecryptable)?, facts))
    }

    /// Encrypts an account's credentials for storage, as [`Self::encrypt`] does a code.
    pub fn encrypt_credentials(&self, aad: &[u8], credentials: &Credentials) -> Vec<u8> {
        self.seal(aad, credentials.to_text().expose_secret())
    }

    /// Decrypts what [`Self::encrypt_credentials`] made with the same key and the same `aad`.
    ///
    /// # Errors
    /// When it was made with another key or another `aad`, or was damaged.
    pub fn decrypt_credentials(
        &self,
        aad: &[u8],
        stored: &[u8],
    ) -> Result<Credentials, Undecryptable> {
        let text = self.open(aad, stored)?;
        Credentials::from_text(text.expose_secret()).ok_or(Undecryptable)
    }

    /// Encrypts by XChaCha20-Poly1305: a version byte, a random nonce of 24 bytes, and the text with a tag of 16 bytes.
    fn seal(&self, aad: &[u8], text: &str) -> Vec<u8> {
        let nonce = XNonce::generate();
        let sealed = self.cipher().encrypt(&nonce, Payload { msg: text.as_bytes(), aad });
        // It fails beyond 256 GiB alone.
        let sealed = sealed.expect("codes and credentials are short enough to be encrypted");
        [&[VERSION], nonce.as_slice(), &sealed].concat()
    }

    fn open(&self, aad: &[u8], stored: &[u8]) -> Result<SecretString, Undecryptable> {
        let (version, rest) = stored.split_first().ok_or(Undecryptable)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_BYTES).ok_or(Undecryptable)?;
        if *version != VERSION {
            return Err(Undecryptable);
        }
        let nonce = XNonce::try_from(nonce).map_err(|_| Undecryptable)?;
        let opened = self.cipher().decrypt(&nonce, Payload { msg: sealed, aad });
        let text = String::from_utf8(opened.map_err(|_| Undecryptable)?);
        Ok(SecretString::from(text.map_err(|_| Undecryptable)?))
    }

    /// Tells this key from another without giving anything of it away. It is stored in the
    /// database, so that a server with another key is refused at its start.
    pub fn check_value(&self) -> [u8; 32] {
        self.check_value
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(self.encryption.expose_secret().into())
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(…)")
    }
}

fn hmac_sha256(key: &[u8; KEY_BYTES], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

fn parse_master(text: &str) -> Option<SecretBox<[u8; KEY_BYTES]>> {
    let text = text.trim();
    let decoded =
        if text.len() == 2 * KEY_BYTES { hex::decode(text).ok() } else { BASE64.decode(text).ok() };
    let mut decoded = decoded?;
    let master = <[u8; KEY_BYTES]>::try_from(decoded.as_slice()).ok();
    decoded.zeroize();
    master.map(|master| SecretBox::new(Box::new(master)))
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
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn key(byte: u8) -> SecretKey {
        SecretKey::derive(&SecretBox::new(Box::new([byte; KEY_BYTES])))
    }

    fn code(text: &str) -> CardCode {
        CardCode::parse(text).unwrap()
    }

    /// A change of these values orphans every stored fingerprint, code and check value.
    #[test]
    fn derived_values_never_change() {
        let key = key(7);
        let stored = hex::decode(PINNED_CIPHERTEXT).unwrap();
        assert_eq!(hex::encode(key.check_value()), PINNED_CHECK_VALUE);
        assert_eq!(hex::encode(key.fingerprint("acme", &code("AB12-cd34"))), PINNED_FINGERPRINT);
        assert_eq!(key.decrypt(b"pool/1", &stored).unwrap().expose(), "AB12-cd34");
    }

    const PINNED_CHECK_VALUE: &str =
        "27179a00060bae85ddb2c2573a4e5a5f801ff609cb2a93b5ce3aad34e6b28a6f";
    const PINNED_FINGERPRINT: &str =
        "3dbfa99eac67a897a01f0d13f9d9ac0eeca9a95553125d5001fc8a408b9baeb5";
    const PINNED_CIPHERTEXT: &str = "01f8376c30ced884b005ed9b6c8fea1deaf12d79ee4b79f34bdead1f7cc8d61afc92612a33347a5b1558fd59ba97821f84fb";

    #[test]
    fn what_is_encrypted_is_decrypted() {
        let stored = key(1).encrypt(b"aad", &code("AB12-cd34"));
        assert_eq!(key(1).decrypt(b"aad", &stored).unwrap().expose(), "AB12-cd34");
        assert_ne!(key(1).encrypt(b"aad", &code("AB12-cd34")), stored, "the nonce is random");
        assert!(!stored.windows(4).any(|part| part == b"AB12"));
        assert_eq!(key(1).encrypt(b"", &code(&"x".repeat(128))).len(), 169);
    }

    #[test]
    fn nothing_else_is_decrypted() {
        let stored = key(1).encrypt(b"aad", &code("AB12-cd34"));
        assert_eq!(key(1).decrypt(b"other", &stored).unwrap_err(), Undecryptable);
        assert_eq!(key(2).decrypt(b"aad", &stored).unwrap_err(), Undecryptable);
        for at in 0..stored.len() {
            let mut damaged = stored.clone();
            damaged[at] ^= 1;
            assert!(key(1).decrypt(b"aad", &damaged).is_err(), "byte {at}");
            assert!(key(1).decrypt(b"aad", &stored[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn credentials_are_decrypted_by_their_key_for_their_account_alone() {
        let given = [("login".to_owned(), "S3CRET".into()), ("pin".to_owned(), "12".into())];
        let credentials = Credentials::new(given.into()).unwrap();
        let stored = key(1).encrypt_credentials(b"pool/a", &credentials);
        assert!(!stored.windows(4).any(|part| part == b"S3CR" || part == b"logi"));
        let opened = key(1).decrypt_credentials(b"pool/a", &stored).unwrap();
        assert_eq!(opened.expose().collect::<Vec<_>>(), [("login", "S3CRET"), ("pin", "12")]);
        assert_eq!(key(1).decrypt_credentials(b"pool/b", &stored).unwrap_err(), Undecryptable);
        assert_eq!(key(2).decrypt_credentials(b"pool/a", &stored).unwrap_err(), Undecryptable);
        let code = key(1).encrypt(b"pool/a", &code("AB12-cd34"));
        assert_eq!(key(1).decrypt_credentials(b"pool/a", &code).unwrap_err(), Undecryptable);
    }

    #[test]
    fn fingerprints_tell_codes_providers_and_keys_apart() {
        let print = |byte, provider, text| key(byte).fingerprint(provider, &code(text));
        assert_eq!(print(1, "acme", "AB12-cd34"), print(1, "acme", "ab12 CD34"));
        assert_ne!(print(1, "acme", "AB12-cd34"), print(1, "acme", "AB12-cd35"));
        assert_ne!(print(1, "acme", "AB12-cd34"), print(1, "acmeA", "B12-cd34"));
        assert_ne!(print(1, "acme", "AB12-cd34"), print(2, "acme", "AB12-cd34"));
    }

    #[test]
    fn a_file_may_hold_hex_or_base64() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let base64 = BASE64.encode([0x5a; 32]);
        for text in ["5a".repeat(32), "5A".repeat(32), base64.trim_end_matches('=').into(), base64]
        {
            fs::write(&path, format!(" {text}\r\n")).unwrap();
            let read = SecretKey::from_file(&path).unwrap();
            assert_eq!(read.check_value(), key(0x5a).check_value(), "{text}");
        }
    }

    #[test]
    fn what_a_bad_file_holds_is_not_in_the_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let texts = ["hunter2", "", &"zz".repeat(32), &"5a".repeat(31), &"5a".repeat(600)];
        for text in texts {
            fs::write(&path, text).unwrap();
            let error = format!("{:?}", SecretKey::from_file(&path).unwrap_err());
            assert!(error.contains("64 digits") && error.contains("key"), "{error}");
            assert!(text.is_empty() || !error.contains(text), "{error}");
        }
        assert!(SecretKey::from_file(&dir.path().join("none")).is_err());
    }

    #[test]
    fn a_key_is_made_once_and_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let first = SecretKey::create_beside(dir.path()).unwrap();
        let second = SecretKey::create_beside(dir.path()).unwrap();
        assert_eq!(first.check_value(), second.check_value());
        let mode = fs::metadata(dir.path().join(FILE_NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_ne!(first.check_value(), SecretKey::ephemeral().check_value());
    }

    #[test]
    fn a_key_does_not_print() {
        assert_eq!(format!("{:?}", key(1)), "SecretKey(…)");
    }
}
