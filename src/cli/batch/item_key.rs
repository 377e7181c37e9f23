//! The names of items that a file does not name: made from the card, by a key that a reader of the database does
//! not have. See docs/adr/0064.

use std::{
    env, fmt, fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use anyhow::Context as _;
use clap::Args;
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret as _, SecretBox, zeroize::Zeroizing};
use sha2::Sha256;

use crate::{
    cli::shared::{csv_files::CardRow, output::note},
    domain::{
        id::{BatchId, ItemId, PoolId},
        redemption::CardCode,
    },
    secret_file,
};

const KEY_BYTES: usize = 32;
/// How made names begin.
const PREFIX: &str = "card-";
/// Bytes of a name that tell its key.
const TAG_BYTES: usize = 2;
/// Bytes of a name that tell its card: two of a batch never share them.
const NAME_BYTES: usize = 12;

/// Where the key is.
#[derive(Args, Clone, Debug, Default)]
pub(in crate::cli) struct ItemKeyArgs {
    /// The file of the key that makes the ids of items which the file does not name. Made when it is not there. In the
    /// data folder of this user, $XDG_DATA_HOME/holdfast/item.key or ~/.local/share/holdfast/item.key, when not given.
    #[arg(long, env = "HOLDFAST_ITEM_KEY_FILE")]
    item_key_file: Option<PathBuf>,
}

impl ItemKeyArgs {
    /// A key in this file.
    pub(in crate::cli) fn in_file(file: PathBuf) -> Self {
        Self { item_key_file: Some(file) }
    }

    /// The key's file.
    pub(super) fn file(&self) -> anyhow::Result<PathBuf> {
        if let Some(file) = &self.item_key_file {
            return Ok(file.clone());
        }
        let folder = |name| env::var_os(name).map(PathBuf::from).filter(|it| it.is_absolute());
        let data = folder("XDG_DATA_HOME").or_else(|| Some(folder("HOME")?.join(".local/share")));
        let data = data.context(
            "there is no home folder for the key of item ids: name a file with --item-key-file, or give the \
             cards a column item_id",
        )?;
        Ok(data.join("holdfast/item.key"))
    }
}

/// The names of a batch's items. The key is read, or made, for the first item that has no name.
pub(in crate::cli) struct ItemNames {
    pool_id: PoolId,
    batch_id: BatchId,
    source: ItemKeyArgs,
    key: OnceLock<ItemKey>,
}

impl fmt::Debug for ItemNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ItemNames({}, {})", self.pool_id, self.batch_id)
    }
}

impl ItemNames {
    /// For a batch.
    pub(super) fn new(pool_id: PoolId, batch_id: BatchId, source: ItemKeyArgs) -> Self {
        Self { pool_id, batch_id, source, key: OnceLock::new() }
    }

    /// The item's name: its own, or one that is made.
    pub(in crate::cli) fn of(&self, card: &CardRow) -> anyhow::Result<ItemId> {
        if let Some(name) = &card.item_id {
            return Ok(name.clone());
        }
        let key = match self.key.get() {
            Some(key) => key,
            None => {
                let key = ItemKey::of_file(&self.source.file()?)?;
                self.key.get_or_init(|| key)
            }
        };
        Ok(key.name(&self.pool_id, &self.batch_id, &card.code)?)
    }

    /// Whether a name was made from a card by another key than this one's.
    pub(super) fn is_of_another_key(&self, name: &str) -> bool {
        let tag = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-'));
        let shape = |tag: &str, rest: &str| {
            tag.len() == 2 * TAG_BYTES
                && rest.len() == 2 * NAME_BYTES
                && tag.chars().chain(rest.chars()).all(|c| c.is_ascii_hexdigit())
        };
        let key = self.key.get();
        tag.zip(key).is_some_and(|((tag, rest), key)| shape(tag, rest) && tag != key.tag)
    }
}

struct ItemKey {
    key: SecretBox<[u8; KEY_BYTES]>,
    tag: String,
}

impl ItemKey {
    fn of_file(file: &Path) -> anyhow::Result<Self> {
        let about = || {
            format!(
                "the key of item ids, {}, cannot be made: name another file with --item-key-file, or give \
                 the cards a column item_id",
                file.display()
            )
        };
        if !file.try_exists().unwrap_or(true) && make(file).with_context(about)? {
            note(format_args!(
                "made the key {}, which makes the ids of items that have none. Keep it, and copy it to other \
                 machines that run the same batches",
                file.display()
            ));
        }
        let text = secret_file::read(file, "the key of item ids")?;
        Self::parse(&text).with_context(|| {
            format!("{} is no key of item ids: it must hold 64 hexadecimal digits", file.display())
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        hex::decode_to_slice(text.trim(), &mut *key).ok()?;
        let tag = hex::encode(&mac(&key, &[b"holdfast item key"])[..TAG_BYTES]);
        Some(Self { key: SecretBox::new(Box::new(*key)), tag })
    }

    fn name(
        &self,
        pool: &PoolId,
        batch: &BatchId,
        code: &CardCode,
    ) -> Result<ItemId, crate::domain::id::InvalidId> {
        let code = code.normalised();
        let parts = [b"holdfast item id", pool.as_str().as_bytes(), batch.as_str().as_bytes()];
        let parts: [&[u8]; 4] = [parts[0], parts[1], parts[2], code.expose_secret().as_bytes()];
        let name = mac(self.key.expose_secret(), &parts);
        ItemId::parse(&format!("{PREFIX}{}-{}", self.tag, hex::encode(&name[..NAME_BYTES])))
    }
}

fn mac(key: &[u8; KEY_BYTES], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
        // No part has this byte in it.
        mac.update(&[0]);
    }
    mac.finalize().into_bytes().into()
}

/// Makes a key's file. Answers whether it did: another program may make it at the same time.
fn make(file: &Path) -> anyhow::Result<bool> {
    let folder = file.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let key: Zeroizing<[u8; KEY_BYTES]> = Zeroizing::new(rand::random());
    // A temporary file is for its owner alone.
    let mut made = tempfile::NamedTempFile::new_in(folder)?;
    writeln!(made, "{}", *Zeroizing::new(hex::encode(*key)))?;
    made.as_file().sync_all()?;
    match made.persist_noclobber(file) {
        Ok(_) => Ok(true),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error.error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn names(batch: &str, file: &Path) -> ItemNames {
        let (pool, batch) = (PoolId::parse("p").unwrap(), BatchId::parse(batch).unwrap());
        ItemNames::new(pool, batch, ItemKeyArgs::in_file(file.to_owned()))
    }

    fn card(code: &str) -> CardRow {
        CardRow {
            line: 2,
            pool_id: None,
            item_id: None,
            code: CardCode::parse(code).unwrap(),
            amount_minor: None,
            currency: None,
        }
    }

    #[test]
    fn a_name_is_the_card_s_whatever_its_line_and_tells_nothing_without_the_key() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("deep/item.key");
        let of = |names: &ItemNames, code: &str| names.of(&card(code)).unwrap().to_string();
        let (first, again) = (names("b", &file), names("b", &file));
        let name = of(&first, "ABCD-1234");
        assert_eq!(of(&again, "abcd1234"), name);
        assert_ne!(of(&again, "ABCD-1235"), name);
        assert_ne!(of(&names("c", &file), "ABCD-1234"), name, "another batch");
        assert_eq!(name.len(), PREFIX.len() + 2 * TAG_BYTES + 1 + 2 * NAME_BYTES);
        assert!(!name.to_uppercase().contains("ABCD1234"));
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

        let other = names("b", &folder.path().join("other.key"));
        assert_ne!(of(&other, "ABCD-1234"), name);
        assert!(other.is_of_another_key(&name) && !first.is_of_another_key(&name));
        for own in ["card-7", "line-2", "card-zzzz-000000000000000000000000", "a"] {
            assert!(!other.is_of_another_key(own), "{own}");
        }
    }

    #[test]
    fn a_name_of_its_own_needs_no_key_and_a_file_that_is_no_key_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("item.key");
        let named = CardRow { item_id: ItemId::parse("x").ok(), ..card("ABCD-1234") };
        assert_eq!(names("b", &file).of(&named).unwrap().as_str(), "x");
        assert!(!file.exists());
        fs::write(&file, "no key").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let error = names("b", &file).of(&card("ABCD-1234")).unwrap_err();
        assert!(error.to_string().contains("64 hexadecimal digits"), "{error:#}");
    }
}
