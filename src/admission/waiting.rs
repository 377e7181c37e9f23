//! The bytes that are held for callers who wait for an account: what they ask for may be long.
//!
//! Who would take more than a share is refused: see [`share`](super::share) for the rule.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The bound. Cheap to clone.
#[derive(Clone, Debug)]
pub struct WaitingBytes(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    most: usize,
    state: Mutex<State>,
    gauge: metrics::Gauge,
}

#[derive(Debug, Default)]
struct State {
    used: usize,
    /// By pool, and by caller.
    by_name: HashMap<Name, usize>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Name {
    Pool(Arc<str>),
    Origin(Arc<str>),
}

/// Bytes that are held, until dropped. Nothing where they are few.
#[derive(Debug, Default)]
pub struct Waits(#[expect(dead_code, reason = "it is kept, not read")] Option<Held>);

#[derive(Debug)]
struct Held {
    bound: WaitingBytes,
    bytes: usize,
    names: [Name; 2],
}

/// So few are not counted: as many callers as may wait hold less than the bound.
const FEW: usize = 1024;

impl WaitingBytes {
    /// At most `most` bytes.
    pub(super) fn new(most: usize) -> Self {
        let gauge = metrics::gauge!("holdfast_held_bytes", "of" => "waiting");
        Self(Arc::new(Inner { most, state: Mutex::default(), gauge }))
    }

    /// Holds `bytes` more for a caller of a pool, if neither would hold more than is left.
    pub fn hold(&self, pool: &str, origin: &Arc<str>, bytes: usize) -> Option<Waits> {
        if bytes <= FEW {
            return Some(Waits(None));
        }
        let names = [Name::Pool(pool.into()), Name::Origin(Arc::clone(origin))];
        let mut state = self.lock();
        let left = self.0.most.saturating_sub(state.used);
        let [of_pool, of_origin] = names.each_ref().map(|name| state.held(name) + bytes);
        // A caller has less than its pool may have, so that there is room for others in it.
        if of_pool > left || of_origin * 2 > left {
            return None;
        }
        state.used += bytes;
        for name in &names {
            *state.by_name.entry(name.clone()).or_default() += bytes;
        }
        self.0.gauge.set(state.used as f64);
        Some(Waits(Some(Held { bound: self.clone(), bytes, names })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn held(&self, name: &Name) -> usize {
        self.by_name.get(name).copied().unwrap_or_default()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.bound.lock();
        state.used -= self.bytes;
        for name in &self.names {
            let left = state.held(name) - self.bytes;
            if left == 0 {
                state.by_name.remove(name);
            } else {
                state.by_name.insert(name.clone(), left);
            }
        }
        self.bound.0.gauge.set(state.used as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_caller_leaves_room_in_its_pool_and_one_pool_for_others() {
        const EACH: usize = 10_000;
        let bound = WaitingBytes::new(60 * EACH);
        let all = |pool: &str, origin: &str| {
            let origin = Arc::from(origin);
            std::iter::from_fn(|| bound.hold(pool, &origin, EACH)).collect::<Vec<_>>()
        };
        let first = all("a", "one");
        assert_eq!(first.len(), 20, "a third");
        assert!(bound.hold("a", &Arc::from("one"), FEW).is_some(), "few are not counted");
        let second = all("a", "two");
        assert_eq!(second.len(), 10, "the pool has half");
        assert!(bound.hold("a", &Arc::from("three"), EACH).is_none());
        assert_eq!(all("b", "three").len(), 10);
        drop((first, second));
        let state = bound.lock();
        assert!(state.used == 0 && state.by_name.is_empty());
    }
}
