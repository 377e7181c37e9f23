//! Accounts by their ids, which can also be gone through part by part while they change.

use std::{collections::HashMap, sync::Arc};

use slab::Slab;

use crate::domain::{account::Account, id::AccountId};

/// An account in memory.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) account: Arc<Account>,
    /// The load that it was seen in, or that was the last one when it was told.
    pub(super) load: u32,
}

/// See [the module](self). An account has a number as long as it is here. One that is taken out and put in again, with
/// nothing between, has its number again: the slab gives the number that was free last.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    numbers: HashMap<AccountId, usize>,
    entries: Slab<Entry>,
}

impl Accounts {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn has(&self, id: &AccountId) -> bool {
        self.numbers.contains_key(id)
    }

    pub(super) fn get(&self, id: &AccountId) -> Option<&Entry> {
        self.entries.get(*self.numbers.get(id)?)
    }

    pub(super) fn get_mut(&mut self, id: &AccountId) -> Option<&mut Entry> {
        self.entries.get_mut(*self.numbers.get(id)?)
    }

    pub(super) fn insert(&mut self, id: AccountId, entry: Entry) {
        self.remove(&id);
        self.numbers.insert(id, self.entries.insert(entry));
    }

    pub(super) fn remove(&mut self, id: &AccountId) -> Option<Entry> {
        self.entries.try_remove(self.numbers.remove(id)?)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().map(|(_, entry)| entry)
    }

    /// The accounts whose numbers are at least `from`, about `most` of them, and where the next part begins. `None` after
    /// the last. Each that is here from the first part to the last is in one of them.
    pub(super) fn part(&self, from: usize, most: usize) -> (Vec<Arc<Account>>, Option<usize>) {
        let next = from + most;
        let part = (from..next).filter_map(|number| self.entries.get(number));
        let accounts = part.map(|entry| Arc::clone(&entry.account)).collect();
        // No number is as great as the room that the slab has.
        (accounts, (next < self.entries.capacity()).then_some(next))
    }
}
