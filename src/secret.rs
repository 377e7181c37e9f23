//! The secret keys: what finds card codes again, and what codes and accounts' credentials are encrypted with.
//!
//! [`SecretKeys`] is what the services use. The keys' bytes are read from a file; which of them is current, and what is
//! kept of those that are not in the file any more, is in the database: see
//! `docs/adr/0054-secret-keys-have-ids-and-the-database-says-which-is-current.md`.

mod facts;
mod file;
mod key;
mod keys;
mod signing;

use secrecy::SecretBox;

pub use self::{file::FILE_NAME, key::SecretKey, keys::SecretKeys, signing::SigningSecret};

const KEY_BYTES: usize = 32;

/// What a key is derived from.
type Master = SecretBox<[u8; KEY_BYTES]>;

/// Something stored that this key does not open: it was made with another key or for another purpose,
/// or it was damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what is stored cannot be decrypted: wrong key or purpose, or damaged")]
pub struct Undecryptable;
