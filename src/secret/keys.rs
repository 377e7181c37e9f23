//! All secret keys of a server: which is current, and what each does.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use anyhow::Context as _;
use chacha20poly1305::aead::Generate as _;
use secrecy::SecretBox;

use super::{FILE_NAME, KEY_BYTES, SecretKey, Undecryptable, file, key, key::FingerprintKey};
use crate::domain::{
    credentials::Credentials,
    redemption::{AccountFacts, CardCode},
    secret_key::{Fingerprint, Fingerprints, KeyId, StoredKey},
};

/// The secret keys of a server. Cheap to clone; the clones change together. Never printed, and wiped from memory when
/// the last one is dropped.
#[derive(Clone)]
pub struct SecretKeys {
    file: Option<PathBuf>,
    now: Arc<RwLock<Arc<KeySet>>>,
}

/// The keys as they were at one time: what is made with it is made with one current key.
pub struct KeySet {
    current: Arc<SecretKey>,
    /// Those of the file, by their ids.
    keys: BTreeMap<KeyId, Arc<SecretKey>>,
    /// The order of the file.
    order: Vec<KeyId>,
    /// Of keys that are not in the file any more: what their fingerprints are made with.
    past: BTreeMap<KeyId, Arc<FingerprintKey>>,
}

impl SecretKeys {
    /// Reads the keys of a file. The first is taken for the current one, until [`Self::follow`] tells which is.
    ///
    /// # Errors
    /// When the file cannot be read, others can read or write it, or it holds anything else. What it holds is never in
    /// the error.
    pub fn from_file(path: &Path) -> anyhow::Result<Self> {
        Ok(Self::new(Some(path.to_owned()), KeySet::new(derive(file::read(path)?))?))
    }

    /// The keys in `secret.key` of an existing directory; one is made there, for its owner's eyes alone, when there is
    /// no such file. Programs that start at the same time get the same key.
    ///
    /// # Errors
    /// When the file can be neither read nor made.
    pub fn create_beside(dir: &Path) -> anyhow::Result<Self> {
        file::create_beside(dir)?;
        Self::from_file(&dir.join(FILE_NAME))
    }

    /// A key that nobody else has and nothing keeps: for data that is thrown away.
    pub fn ephemeral() -> Self {
        let master = SecretBox::init_with_mut(|it| *it = <[u8; KEY_BYTES]>::generate());
        let key = Arc::new(SecretKey::derive(KeyId::FIRST, &master));
        let keys = BTreeMap::from([(KeyId::FIRST, Arc::clone(&key))]);
        let past = BTreeMap::new();
        Self::new(None, KeySet { current: key, keys, order: vec![KeyId::FIRST], past })
    }

    fn new(file: Option<PathBuf>, keys: KeySet) -> Self {
        Self { file, now: Arc::new(RwLock::new(Arc::new(keys))) }
    }

    /// The keys as they are now.
    pub fn now(&self) -> Arc<KeySet> {
        Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the file again, takes the current key from what the database has, and answers whether anything is new.
    ///
    /// # Errors
    /// When the file cannot be read, or lacks what is in use. The keys stay as they were.
    pub fn follow(&self, stored: &[StoredKey]) -> anyhow::Result<bool> {
        let before = self.now();
        let keys = match &self.file {
            Some(path) => derive(file::read_again(path)?),
            None => before.order.iter().map(|id| Arc::clone(&before.keys[id])).collect(),
        };
        let next = KeySet::new(keys)?.following(stored)?;
        let is_new = next.ids() != before.ids() || next.current() != before.current();
        if is_new || next.order != before.order || !next.past.keys().eq(before.past.keys()) {
            *self.now.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        }
        Ok(is_new)
    }

    /// A code's fingerprints.
    pub fn fingerprints(&self, provider: &str, code: &CardCode) -> Fingerprints {
        self.now().fingerprints(provider, code)
    }

    /// A code's fingerprint by the current key: for what is not kept.
    pub fn fingerprint(&self, provider: &str, code: &CardCode) -> Fingerprint {
        self.now().current.fingerprint(provider, code)
    }

    /// Encrypts a code for storage: see [`SecretKey::encrypt`].
    pub fn encrypt(&self, aad: &[u8], code: &CardCode) -> Vec<u8> {
        self.now().current.encrypt(aad, code)
    }

    /// Encrypts an account's credentials for storage: see [`SecretKey::encrypt`].
    pub fn encrypt_credentials(&self, aad: &[u8], credentials: &Credentials) -> Vec<u8> {
        self.now().current.encrypt_credentials(aad, credentials)
    }

    /// Decrypts a code that is stored under `aad`.
    ///
    /// # Errors
    /// When it was made with a key that this server lacks or another `aad`, or was damaged.
    pub fn decrypt(&self, aad: &[u8], stored: &[u8]) -> Result<CardCode, Undecryptable> {
        self.now().key_of(stored).ok_or(Undecryptable)?.decrypt(aad, stored)
    }

    /// Decrypts a code that is stored under `aad`, with what is to be sent with it.
    ///
    /// # Errors
    /// As [`Self::decrypt`].
    pub fn decrypt_with(
        &self,
        aad: &[u8],
        stored: &[u8],
    ) -> Result<(CardCode, AccountFacts), Undecryptable> {
        self.now().key_of(stored).ok_or(Undecryptable)?.decrypt_with(aad, stored)
    }

    /// Decrypts an account's credentials that are stored under `aad`.
    ///
    /// # Errors
    /// As [`Self::decrypt`].
    pub fn decrypt_credentials(
        &self,
        aad: &[u8],
        stored: &[u8],
    ) -> Result<Credentials, Undecryptable> {
        self.now().key_of(stored).ok_or(Undecryptable)?.decrypt_credentials(aad, stored)
    }

    /// Whether something was encrypted with a key that this server does not have: no damage, and no reason to tell
    /// anybody that it cannot be read.
    pub fn lacks_key_of(&self, stored: &[u8]) -> bool {
        key::key_of(stored).is_some_and(|id| !self.now().keys.contains_key(&id))
    }
}

fn derive(masters: Vec<(KeyId, super::Master)>) -> Vec<Arc<SecretKey>> {
    masters.iter().map(|(id, master)| Arc::new(SecretKey::derive(*id, master))).collect()
}

impl KeySet {
    fn new(keys: Vec<Arc<SecretKey>>) -> anyhow::Result<Self> {
        let current = Arc::clone(keys.first().context("the secret key file has no key")?);
        let order = keys.iter().map(|key| key.id()).collect();
        let keys = keys.into_iter().map(|key| (key.id(), key)).collect();
        Ok(Self { current, keys, order, past: BTreeMap::new() })
    }

    /// The same keys, with the current one, and the fingerprints of those that are not here, as the database has them.
    fn following(mut self, stored: &[StoredKey]) -> anyhow::Result<Self> {
        let mut wrong = Vec::new();
        for it in stored {
            let id = it.key_id;
            match self.keys.get(&id) {
                Some(key) if key.check_value()[..] != it.check_value[..] => wrong.push(format!(
                    "the secret key {id} is not the one that this database's codes are encrypted with"
                )),
                Some(key) if it.is_current => self.current = Arc::clone(key),
                Some(_) => {}
                None => match self.kept(it) {
                    Some(key) => drop(self.past.insert(id, Arc::new(key))),
                    None => wrong.push(format!(
                        "the secret key {id} is missing, and codes or credentials in this database are encrypted \
                         with it, or will be"
                    )),
                },
            }
        }
        anyhow::ensure!(
            wrong.is_empty(),
            "{}; give the right ones with HOLDFAST_SECRET_KEY_FILE",
            wrong.join("; ")
        );
        Ok(self)
    }

    /// What a key that is not in the file, nor needed for more, makes fingerprints with.
    fn kept(&self, stored: &StoredKey) -> Option<FingerprintKey> {
        let (by, sealed) =
            stored.kept.as_ref().filter(|_| stored.is_retired && !stored.is_current)?;
        self.keys.get(by)?.kept_fingerprints(stored.key_id, sealed).ok()
    }

    fn key_of(&self, stored: &[u8]) -> Option<&SecretKey> {
        self.keys.get(&key::key_of(stored)?).map(|key| &**key)
    }

    /// The key that new codes and credentials are encrypted with.
    pub fn current(&self) -> KeyId {
        self.current.id()
    }

    /// The first key of the file: the one that is to become current.
    pub fn first(&self) -> KeyId {
        self.order[0]
    }

    /// The keys of the file, by their ids.
    pub fn ids(&self) -> Vec<KeyId> {
        self.keys.keys().copied().collect()
    }

    /// A key's check value.
    pub fn check_value(&self, id: KeyId) -> Option<[u8; 32]> {
        self.keys.get(&id).map(|key| key.check_value())
    }

    /// A code's fingerprints.
    pub fn fingerprints(&self, provider: &str, code: &CardCode) -> Fingerprints {
        let of_file = self.keys.values().map(|key| (key.id(), key.fingerprint(provider, code)));
        let of_past = self.past.iter().map(|(id, key)| (*id, key.fingerprint(provider, code)));
        Fingerprints { current: self.current(), all: of_file.chain(of_past).collect() }
    }

    /// Encrypts a code for storage, with what else is to be sent with it: see [`SecretKey::encrypt_with`].
    pub fn encrypt_with(&self, aad: &[u8], code: &CardCode, facts: &AccountFacts) -> Vec<u8> {
        self.current.encrypt_with(aad, code, facts)
    }

    /// What the current key keeps of every other, so that its fingerprints are found when it is gone.
    pub fn keep_others(&self, stored: &[StoredKey]) -> Vec<(KeyId, Vec<u8>)> {
        let others = stored.iter().map(|it| it.key_id).filter(|id| *id != self.current());
        let keep = |id: KeyId| {
            let of_file = self.keys.get(&id).map(|key| key.fingerprints());
            let key = of_file.or_else(|| self.past.get(&id).map(|key| &**key))?;
            Some((id, self.current.keep_fingerprints(id, key)))
        };
        others.filter_map(keep).collect()
    }
}

impl fmt::Debug for SecretKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKeys(…)")
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeySet(…)")
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    fn write(path: &Path, text: &str) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn id(number: i32) -> KeyId {
        KeyId::from_number(number).unwrap()
    }

    /// A file of keys; the first is the first of it.
    fn file_of(dir: &Path, ids: &[i32]) -> PathBuf {
        let path = dir.join("keys");
        let line = |id: &i32| format!("{id}: {}\n", format!("{id:02}").repeat(32));
        write(&path, &ids.iter().map(line).collect::<String>());
        path
    }

    fn stored(keys: &SecretKeys, number: i32, current: i32) -> StoredKey {
        StoredKey {
            key_id: id(number),
            check_value: keys.now().check_value(id(number)).unwrap().to_vec(),
            is_current: number == current,
            is_retired: false,
            kept: None,
        }
    }

    #[test]
    fn the_database_says_which_key_is_current_and_the_file_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let keys = SecretKeys::from_file(&file_of(dir.path(), &[1])).unwrap();
        let code = CardCode::parse("AB12-cd34").unwrap();
        let old = keys.encrypt(b"aad", &code);
        let first = stored(&keys, 1, 1);
        file_of(dir.path(), &[2, 1]);
        assert!(keys.follow(std::slice::from_ref(&first)).unwrap());
        assert!(!keys.follow(std::slice::from_ref(&first)).unwrap());
        let now = keys.now();
        assert_eq!((now.current(), now.first(), now.ids()), (id(1), id(2), vec![id(1), id(2)]));
        assert!(keys.follow(&[stored(&keys, 1, 2), stored(&keys, 2, 2)]).unwrap());
        assert_eq!(keys.now().current(), id(2));
        let new = keys.encrypt(b"aad", &code);
        assert_eq!(new[..3], [2, 0, 2]);
        for stored in [&old, &new] {
            assert_eq!(keys.decrypt(b"aad", stored).unwrap().expose(), code.expose());
        }
        let prints = keys.fingerprints("acme", &code);
        assert_eq!((prints.current, prints.all.len()), (id(2), 2));
        assert_ne!(prints.of(id(1)), prints.of(id(2)));
    }

    #[test]
    fn a_key_that_is_needed_and_missing_or_another_is_told_by_its_id() {
        let dir = tempfile::tempdir().unwrap();
        let keys = SecretKeys::from_file(&file_of(dir.path(), &[2, 1])).unwrap();
        let mut all = [stored(&keys, 1, 2), stored(&keys, 2, 2)];
        keys.follow(&all).unwrap();
        file_of(dir.path(), &[3]);
        let told = keys.follow(&all).unwrap_err().to_string();
        assert!(told.contains("key 1 is missing") && told.contains("key 2 is missing"), "{told}");
        assert_eq!(keys.now().ids(), [id(1), id(2)], "they stay as they were");
        file_of(dir.path(), &[2, 1]);
        all[0].check_value = vec![0; 32];
        let told = keys.follow(&all).unwrap_err().to_string();
        assert!(told.contains("the secret key 1 is not the one"), "{told}");
    }

    #[test]
    fn fingerprints_of_a_key_that_is_gone_are_made_by_what_the_current_one_keeps() {
        let dir = tempfile::tempdir().unwrap();
        let keys = SecretKeys::from_file(&file_of(dir.path(), &[2, 1])).unwrap();
        let mut all = [stored(&keys, 1, 2), stored(&keys, 2, 2)];
        keys.follow(&all).unwrap();
        let code = CardCode::parse("AB12-cd34").unwrap();
        let before = keys.fingerprints("acme", &code);
        let kept = keys.now().keep_others(&all);
        assert_eq!(kept.len(), 1);
        all[0].kept = Some((id(2), kept[0].1.clone()));
        file_of(dir.path(), &[2]);
        assert!(keys.follow(&all).is_err(), "it still encrypts something");
        all[0].is_retired = true;
        assert!(keys.follow(&all).unwrap());
        let started_now = SecretKeys::from_file(&dir.path().join("keys")).unwrap();
        started_now.follow(&all).unwrap();
        for keys in [&keys, &started_now] {
            let after = keys.fingerprints("acme", &code);
            assert_eq!((after.of(id(1)), after.of(id(2))), (before.of(id(1)), before.of(id(2))));
        }
        assert_eq!(keys.now().ids(), [id(2)]);
        // And on to the next.
        assert_eq!(keys.now().keep_others(&all).len(), 1);
    }

    #[test]
    fn a_key_is_made_once_and_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let check = |keys: SecretKeys| keys.now().check_value(KeyId::FIRST).unwrap();
        let first = check(SecretKeys::create_beside(dir.path()).unwrap());
        assert_eq!(first, check(SecretKeys::create_beside(dir.path()).unwrap()));
        let mode = fs::metadata(dir.path().join(FILE_NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_ne!(first, check(SecretKeys::ephemeral()));
        assert!(SecretKeys::from_file(&dir.path().join("none")).is_err());
    }

    #[test]
    fn what_no_key_of_this_server_opens_is_told_from_damage() {
        let dir = tempfile::tempdir().unwrap();
        let keys = SecretKeys::from_file(&file_of(dir.path(), &[1])).unwrap();
        assert!(keys.lacks_key_of(b"\x02\x00\x02rest"));
        assert!(
            !keys.lacks_key_of(b"\x01rest")
                && !keys.lacks_key_of(b"\x03")
                && !keys.lacks_key_of(b"")
        );
    }
}
