//! A bound on bytes that are held for clients: of requests that are not complete yet, and of answers that are
//! not read yet.
//!
//! Nobody waits for room. Bytes for a client that does nothing are held for long, and those of a call that is
//! served are not. Where there is no room, the caller that holds the most loses what it has held the longest. So does
//! one that holds more than one caller may.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;

/// The bound. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    most: usize,
    /// The most that one caller may hold.
    most_of_one: usize,
    state: Mutex<State>,
    evicted: metrics::Counter,
    held: metrics::Gauge,
}

#[derive(Debug, Default)]
struct State {
    used: usize,
    next: u64,
    owners: HashMap<Arc<str>, Owner>,
}

/// What one caller holds.
#[derive(Debug, Default)]
struct Owner {
    used: usize,
    /// The oldest first.
    held: BTreeMap<u64, Held>,
}

#[derive(Debug)]
struct Held {
    bytes: usize,
    slot: Arc<Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    evicted: AtomicBool,
    waker: AtomicWaker,
    kept: Mutex<Bytes>,
}

/// Bytes that are held, until dropped or evicted.
#[derive(Debug)]
pub struct Hold {
    budget: Budget,
    owner: Arc<str>,
    number: u64,
    slot: Arc<Slot>,
}

impl Budget {
    /// At most `most` bytes, and `most_of_one` of one caller. `of` names what is held, for operators.
    pub(super) fn new(most: usize, most_of_one: usize, of: &'static str) -> Self {
        let evicted = metrics::counter!("holdfast_evictions_total", "of" => of);
        let held = metrics::gauge!("holdfast_held_bytes", "of" => of);
        Self(Arc::new(Inner { most, most_of_one, state: Mutex::default(), evicted, held }))
    }

    /// Holds `bytes` more for `owner`.
    pub fn hold(&self, owner: &Arc<str>, bytes: usize) -> Hold {
        let slot = Arc::new(Slot::default());
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        let of_owner = state.owners.entry(Arc::clone(owner)).or_default();
        of_owner.held.insert(number, Held { bytes: 0, slot: Arc::clone(&slot) });
        state.set(owner, number, bytes);
        self.make_room(state, owner);
        Hold { budget: self.clone(), owner: Arc::clone(owner), number, slot }
    }

    /// How many bytes are held.
    pub fn used(&self) -> usize {
        self.lock().used
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Evicts what is too much, when `owner` holds more than before.
    fn make_room(&self, mut state: MutexGuard<'_, State>, owner: &Arc<str>) {
        let mut gone = Vec::new();
        while state.owners.get(owner).is_some_and(|owner| owner.used > self.0.most_of_one)
            && let Some(slot) = state.evict(owner)
        {
            gone.push(slot);
        }
        while state.used > self.0.most {
            let heaviest = state.owners.iter().max_by_key(|(_, owner)| owner.used);
            let Some(heaviest) = heaviest.map(|(name, _)| Arc::clone(name)) else { break };
            gone.extend(state.evict(&heaviest));
        }
        self.0.held.set(state.used as f64);
        drop(state);
        self.0.evicted.increment(gone.len() as u64);
        for slot in gone {
            slot.evicted.store(true, Ordering::Release);
            std::mem::take(&mut *slot.kept.lock().unwrap_or_else(PoisonError::into_inner));
            slot.waker.wake();
        }
    }
}

impl State {
    /// Changes how many bytes are held.
    fn set(&mut self, owner: &Arc<str>, number: u64, bytes: usize) {
        let Some(owner) = self.owners.get_mut(owner) else { return };
        let Some(held) = owner.held.get_mut(&number) else { return };
        let before = std::mem::replace(&mut held.bytes, bytes);
        owner.used = owner.used - before + bytes;
        self.used = self.used - before + bytes;
    }

    /// Takes out what an owner has held the longest.
    fn evict(&mut self, owner: &Arc<str>) -> Option<Arc<Slot>> {
        let number = *self.owners.get(owner)?.held.first_key_value()?.0;
        self.remove(owner, number)
    }

    fn remove(&mut self, name: &Arc<str>, number: u64) -> Option<Arc<Slot>> {
        let owner = self.owners.get_mut(name)?;
        let held = owner.held.remove(&number)?;
        owner.used -= held.bytes;
        self.used -= held.bytes;
        if owner.held.is_empty() {
            self.owners.remove(name);
        }
        Some(held.slot)
    }
}

impl Hold {
    /// Changes how many bytes are held.
    pub fn set(&self, bytes: usize) {
        let mut state = self.budget.lock();
        state.set(&self.owner, self.number, bytes);
        self.budget.make_room(state, &self.owner);
    }

    /// Whether this was evicted.
    pub fn is_evicted(&self) -> bool {
        self.slot.evicted.load(Ordering::Acquire)
    }

    /// Ready when this is evicted.
    pub fn poll_evicted(&self, cx: &Context<'_>) -> Poll<()> {
        self.slot.waker.register(cx.waker());
        if self.is_evicted() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Keeps `bytes` where they can be evicted without the holder's doing.
    pub fn keep(&self, bytes: Bytes) {
        let mut kept = self.slot.kept.lock().unwrap_or_else(PoisonError::into_inner);
        // Asked under the lock: an eviction is noted before what is kept is emptied.
        if !self.is_evicted() {
            *kept = bytes;
        }
    }

    /// The next `most` of what is kept, copied so that they keep nothing else alive, and how many are left.
    pub fn next_chunk(&self, most: usize) -> (Bytes, usize) {
        let mut kept = self.slot.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let most = kept.len().min(most);
        let chunk = kept.split_to(most);
        (Bytes::copy_from_slice(&chunk), kept.len())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut state = self.budget.lock();
        state.remove(&self.owner, self.number);
        self.budget.0.held.set(state.used as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evicted(holds: &[Hold]) -> Vec<bool> {
        holds.iter().map(Hold::is_evicted).collect()
    }

    #[test]
    fn what_is_held_longest_is_evicted_of_where_there_is_no_room() {
        let budget = Budget::new(100, 100, "test");
        let owner = Arc::from("one");
        let holds: Vec<_> = (0..4).map(|_| budget.hold(&owner, 30)).collect();
        assert_eq!((evicted(&holds), budget.used()), (vec![true, false, false, false], 90));
        holds[2].set(60);
        assert_eq!((evicted(&holds), budget.used()), (vec![true, true, false, false], 90));
        drop(holds);
        assert_eq!(budget.used(), 0);
        assert!(budget.lock().owners.is_empty());
    }

    #[test]
    fn the_caller_that_holds_the_most_makes_room_and_one_has_its_own_bound() {
        let budget = Budget::new(100, 80, "test");
        let (small, large) = (Arc::from("small"), Arc::from("large"));
        let first = budget.hold(&small, 10);
        let holds: Vec<_> = (0..4).map(|_| budget.hold(&large, 30)).collect();
        assert_eq!(evicted(&holds), [true, true, false, false], "more than one may hold");
        let more: Vec<_> = (0..2).map(|_| budget.hold(&small, 20)).collect();
        assert_eq!(evicted(&holds), [true, true, true, false]);
        assert!(!first.is_evicted(), "although it is older");
        drop((first, holds, more));
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn what_is_kept_goes_with_its_hold() {
        let budget = Budget::new(100, 100, "test");
        let owner = Arc::from("one");
        let hold = budget.hold(&owner, 60);
        hold.keep(Bytes::from_static(b"some bytes"));
        assert_eq!(hold.next_chunk(4), (Bytes::from_static(b"some"), 6));
        let _other = budget.hold(&owner, 60);
        assert!(hold.is_evicted());
        assert_eq!(hold.next_chunk(4), (Bytes::new(), 0));
        hold.keep(Bytes::from_static(b"more"));
        assert_eq!(hold.next_chunk(4), (Bytes::new(), 0), "too late to keep any");
    }
}
