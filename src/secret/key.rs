//! One secret key: the fingerprints of card codes, and what codes and accounts' credentials are encrypted with.
//!
//! Changing anything here orphans what is stored: fingerprints no longer find duplicates, and codes
//! and credentials can no longer be read. The tests pin the values; a new scheme gets a new version byte and new
//! labels beside the old ones.

use std::fmt;

use chacha20poly1305::{
    KeyInit as _, XChaCha20Poly1305, XNonce,
    aead::{Aead as _, Generate as _, Payload},
};
use hmac::{Hmac, Mac as _};
use secrecy::{
    ExposeSecret as _, SecretBox, SecretString,
    zeroize::{Zeroize as _, Zeroizing},
};
use sha2::Sha256;

use super::{KEY_BYTES, Master, Undecryptable, facts};
use crate::domain::{
    credentials::Credentials,
    redemption::{AccountFacts, CardCode},
    secret_key::{Fingerprint, KeyId},
};

/// The first byte of what is encrypted with the first key: from before keys had ids.
const OF_THE_FIRST_KEY: u8 = 1;
/// The first byte of what is encrypted with any other. The key's id follows, in two bytes.
const WITH_ID: u8 = 2;

const NONCE_BYTES: usize = 24;

const FINGERPRINT_LABEL: &[u8] = b"holdfast v1 fingerprint";
const ENCRYPTION_LABEL: &[u8] = b"holdfast v1 encryption";
const CHECK_LABEL: &[u8] = b"holdfast v1 check";

/// The key that something was encrypted with; `None` where it does not say so.
pub(super) fn key_of(stored: &[u8]) -> Option<KeyId> {
    Some(split(stored)?.0)
}

/// The key that something was encrypted with, and the rest.
fn split(stored: &[u8]) -> Option<(KeyId, &[u8])> {
    match stored {
        [OF_THE_FIRST_KEY, rest @ ..] => Some((KeyId::FIRST, rest)),
        [WITH_ID, high, low, rest @ ..] => Some((KeyId::from_bytes([*high, *low])?, rest)),
        _ => None,
    }
}

/// What fingerprints are made with.
pub(super) struct FingerprintKey(SecretBox<[u8; KEY_BYTES]>);

impl FingerprintKey {
    /// Finds duplicates of a code without keeping it. It is the same for the same provider and code, in any
    /// spelling, and of no use without the key.
    pub(super) fn fingerprint(&self, provider: &str, code: &CardCode) -> Fingerprint {
        let code = code.normalised();
        let code = code.expose_secret().as_bytes();
        // With its length before it, no provider's end can pass for the beginning of a code.
        let provider_bytes = (provider.len() as u64).to_be_bytes();
        hmac_sha256(self.0.expose_secret(), &[&provider_bytes, provider.as_bytes(), code])
    }
}

/// The keys derived from the master secret. Never printed, and wiped from memory when dropped.
pub struct SecretKey {
    id: KeyId,
    fingerprint: FingerprintKey,
    encryption: SecretBox<[u8; KEY_BYTES]>,
    check_value: [u8; 32],
}

impl SecretKey {
    pub(super) fn derive(id: KeyId, master: &Master) -> Self {
        let key = |label| {
            SecretBox::init_with_mut(|key| *key = hmac_sha256(master.expose_secret(), &[label]))
        };
        Self {
            id,
            fingerprint: FingerprintKey(key(FINGERPRINT_LABEL)),
            encryption: key(ENCRYPTION_LABEL),
            check_value: hmac_sha256(master.expose_secret(), &[CHECK_LABEL]),
        }
    }

    /// The key's id.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// A code's fingerprint.
    pub fn fingerprint(&self, provider: &str, code: &CardCode) -> Fingerprint {
        self.fingerprint.fingerprint(provider, code)
    }

    /// Encrypts a code for storage. `aad` names what it belongs to, and has to be given again to decrypt it. So a
    /// stored code cannot be moved to another row. The answer has at most 171 bytes.
    pub fn encrypt(&self, aad: &[u8], code: &CardCode) -> Vec<u8> {
        self.seal(aad, code.expose().as_bytes())
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
        let text = facts::to_text(code, facts);
        self.seal(aad, &text)
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
        facts::from_text(text.expose_secret()).ok_or(Undecryptable)
    }

    /// Encrypts an account's credentials for storage, as [`Self::encrypt`] does a code.
    pub fn encrypt_credentials(&self, aad: &[u8], credentials: &Credentials) -> Vec<u8> {
        self.seal(aad, credentials.to_text().expose_secret().as_bytes())
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

    /// Encrypts what another key makes fingerprints with, so that they are found when that key is gone.
    pub(super) fn keep_fingerprints(&self, other: KeyId, key: &FingerprintKey) -> Vec<u8> {
        self.seal(
            &kept_context(other),
            Zeroizing::new(hex::encode(key.0.expose_secret())).as_bytes(),
        )
    }

    /// Decrypts what [`Self::keep_fingerprints`] made.
    pub(super) fn kept_fingerprints(
        &self,
        other: KeyId,
        stored: &[u8],
    ) -> Result<FingerprintKey, Undecryptable> {
        let text = self.open(&kept_context(other), stored)?;
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        let read = hex::decode_to_slice(text.expose_secret(), &mut *key);
        read.map_err(|_| Undecryptable)?;
        Ok(FingerprintKey(SecretBox::init_with_mut(|it| *it = *key)))
    }

    /// What this key makes fingerprints with.
    pub(super) fn fingerprints(&self) -> &FingerprintKey {
        &self.fingerprint
    }

    /// Encrypts by XChaCha20-Poly1305: a version byte and the key's id, a random nonce of 24 bytes, and the text with a
    /// tag of 16 bytes. The id is left out for the first key.
    fn seal(&self, aad: &[u8], text: &[u8]) -> Vec<u8> {
        let nonce = XNonce::generate();
        let sealed = self.cipher().encrypt(&nonce, Payload { msg: text, aad });
        // It fails beyond 256 GiB alone.
        let sealed = sealed.expect("codes and credentials are short enough to be encrypted");
        let [high, low] = self.id.to_bytes();
        let head: &[u8] = match self.id {
            KeyId::FIRST => &[OF_THE_FIRST_KEY],
            _ => &[WITH_ID, high, low],
        };
        [head, nonce.as_slice(), &sealed].concat()
    }

    fn open(&self, aad: &[u8], stored: &[u8]) -> Result<SecretString, Undecryptable> {
        let (id, rest) = split(stored).ok_or(Undecryptable)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_BYTES).ok_or(Undecryptable)?;
        if id != self.id {
            return Err(Undecryptable);
        }
        let nonce = XNonce::try_from(nonce).map_err(|_| Undecryptable)?;
        let opened = self.cipher().decrypt(&nonce, Payload { msg: sealed, aad });
        let mut opened = opened.map_err(|_| Undecryptable)?;
        let text = str::from_utf8(&opened).map(SecretString::from);
        opened.zeroize();
        text.map_err(|_| Undecryptable)
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

/// What binds what is kept of a key to that key. No pool's name has a space, so it is no code's nor account's.
fn kept_context(id: KeyId) -> Vec<u8> {
    format!("fingerprints of key/{id}").into_bytes()
}

fn hmac_sha256(key: &[u8; KEY_BYTES], parts: &[&[u8]]) -> [u8; KEY_BYTES] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> SecretKey {
        key_of_id(byte, KeyId::FIRST)
    }

    fn key_of_id(byte: u8, id: KeyId) -> SecretKey {
        SecretKey::derive(id, &SecretBox::new(Box::new([byte; KEY_BYTES])))
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
    fn what_another_key_than_the_first_encrypts_says_which() {
        let id = KeyId::parse("258").unwrap();
        let stored = key_of_id(1, id).encrypt(b"aad", &code(&"x".repeat(128)));
        assert_eq!((&stored[..3], stored.len()), (&[2, 1, 2][..], 171));
        assert_eq!(super::key_of(&stored), Some(id));
        assert!(key_of_id(1, id).decrypt(b"aad", &stored).is_ok());
        assert_eq!(key(1).decrypt(b"aad", &stored).unwrap_err(), Undecryptable);
        assert_eq!(super::key_of(&key(1).encrypt(b"aad", &code("AB12-cd34"))), Some(KeyId::FIRST));
        for nothing in [&b""[..], b"\x03abc", b"\x02\x00\x00", b"\x02\x01"] {
            assert_eq!(super::key_of(nothing), None);
        }
    }

    #[test]
    fn what_a_key_makes_fingerprints_with_is_kept_by_another() {
        let id = KeyId::parse("2").unwrap();
        let kept = key_of_id(2, id).keep_fingerprints(KeyId::FIRST, &key(1).fingerprint);
        let again = key_of_id(2, id).kept_fingerprints(KeyId::FIRST, &kept).unwrap();
        let code = code("AB12-cd34");
        assert_eq!(again.fingerprint("acme", &code), key(1).fingerprint("acme", &code));
        assert!(key_of_id(2, id).kept_fingerprints(id, &kept).is_err(), "of its own key alone");
        assert!(key_of_id(3, id).kept_fingerprints(KeyId::FIRST, &kept).is_err());
    }

    #[test]
    fn a_key_does_not_print() {
        assert_eq!(format!("{:?}", key(1)), "SecretKey(…)");
    }
}
