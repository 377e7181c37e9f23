//! A bound on bytes that are held for clients: of requests that are not complete yet, and of answers that are
//! not read yet.
//!
//! Nobody waits for room. Bytes for a client that does nothing are held for long, and those of a call that is
//! served are not. Where there is no room, what has been held the longest is evicted.

use std::{
    collections::BTreeMap,
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
    state: Mutex<State>,
    evicted: metrics::Counter,
}

#[derive(Debug, Default)]
struct State {
    used: usize,
    next: u64,
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
    number: u64,
    slot: Arc<Slot>,
}

impl Budget {
    /// At most `most` bytes. `of` names what is held, for operators.
    pub(super) fn new(most: usize, of: &'static str) -> Self {
        let evicted = metrics::counter!("holdfast_evictions_total", "of" => of);
        Self(Arc::new(Inner { most, state: Mutex::default(), evicted }))
    }

    /// Holds `bytes` more.
    pub fn hold(&self, bytes: usize) -> Hold {
        let slot = Arc::new(Slot::default());
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        state.used += bytes;
        state.held.insert(number, Held { bytes, slot: Arc::clone(&slot) });
        self.make_room(state);
        Hold { budget: self.clone(), number, slot }
    }

    /// How many bytes are held.
    pub fn used(&self) -> usize {
        self.lock().used
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn make_room(&self, mut state: MutexGuard<'_, State>) {
        let mut gone = Vec::new();
        while state.used > self.0.most {
            let Some((_, oldest)) = state.held.pop_first() else { break };
            state.used -= oldest.bytes;
            gone.push(oldest.slot);
        }
        drop(state);
        self.0.evicted.increment(gone.len() as u64);
        for slot in gone {
            slot.evicted.store(true, Ordering::Release);
            std::mem::take(&mut *slot.kept.lock().unwrap_or_else(PoisonError::into_inner));
            slot.waker.wake();
        }
    }
}

impl Hold {
    /// Changes how many bytes are held.
    pub fn set(&self, bytes: usize) {
        let mut state = self.budget.lock();
        let Some(held) = state.held.get_mut(&self.number) else { return };
        let before = std::mem::replace(&mut held.bytes, bytes);
        state.used = state.used - before + bytes;
        self.budget.make_room(state);
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
        if let Some(held) = state.held.remove(&self.number) {
            state.used -= held.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_longest_is_evicted_of_where_there_is_no_room() {
        let budget = Budget::new(100, "test");
        let holds: Vec<_> = (0..4).map(|_| budget.hold(30)).collect();
        let gone: Vec<_> = holds.iter().map(Hold::is_evicted).collect();
        assert_eq!((gone, budget.used()), (vec![true, false, false, false], 90));
        holds[2].set(60);
        let gone: Vec<_> = holds.iter().map(Hold::is_evicted).collect();
        assert_eq!((gone, budget.used()), (vec![true, true, false, false], 90));
        drop(holds);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn what_is_kept_goes_with_its_hold() {
        let budget = Budget::new(100, "test");
        let hold = budget.hold(60);
        hold.keep(Bytes::from_static(b"some bytes"));
        assert_eq!(hold.next_chunk(4), (Bytes::from_static(b"some"), 6));
        let _other = budget.hold(60);
        assert!(hold.is_evicted());
        assert_eq!(hold.next_chunk(4), (Bytes::new(), 0));
        hold.keep(Bytes::from_static(b"more"));
        assert_eq!(hold.next_chunk(4), (Bytes::new(), 0), "too late to keep any");
    }
}
