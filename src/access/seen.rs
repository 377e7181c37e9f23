//! The JWTs and certificates that were found valid, so that each is checked once.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
};

use tokio::time::Instant;

use super::Access;
use crate::domain::access::Grants;

/// The most that are kept. Only valid ones are: those who guess take no room.
const MOST: usize = 10_000;

/// By the hash of what was shown.
#[derive(Debug, Default)]
pub(super) struct Seen(RwLock<HashMap<[u8; 32], Entry>>);

#[derive(Debug)]
pub(super) struct Entry {
    access: Access,
    /// The issuer's key that a JWT was signed with.
    pub(super) key: Option<u64>,
}

impl Entry {
    pub(super) fn principal(&self) -> &str {
        self.access.principal().name()
    }

    pub(super) fn grants(&self) -> &Grants {
        self.access.grants()
    }
}

impl Seen {
    pub(super) fn get(&self, hash: &[u8; 32]) -> Option<Access> {
        let seen = self.0.read().unwrap_or_else(PoisonError::into_inner);
        seen.get(hash).map(|entry| entry.access.clone())
    }

    /// Keeps one, unless a call beside this one just did. Answers the one that is kept.
    pub(super) fn keep_new(
        &self,
        hash: [u8; 32],
        access: Access,
        key: Option<u64>,
        now: Instant,
    ) -> Access {
        let mut seen = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= MOST {
            seen.retain(|_, entry| !entry.access.is_over(now));
        }
        if seen.len() >= MOST {
            // They are checked again when they come again. Their streams go on until they expire.
            seen.clear();
        }
        seen.entry(hash).or_insert(Entry { access, key }).access.clone()
    }

    /// Ends those of which `is_kept` is false.
    pub(super) fn keep(&self, is_kept: impl Fn(&Entry) -> bool) {
        let mut seen = self.0.write().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|_, entry| {
            let kept = is_kept(entry);
            if !kept {
                entry.access.end();
            }
            kept
        });
    }
}
