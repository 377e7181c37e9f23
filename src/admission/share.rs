//! Shares of pools: one pool's calls never keep out another's.
//!
//! The rule is a switch's, for its queues in one memory (Choudhury and Hahne, 1998). A pool may hold as many
//! permits as there are left, times a weight. Nothing has to be configured. One pool alone gets nearly all, or
//! half, by the weight. With more pools each gets less, and something is always left for one that comes anew.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::Class;

/// The weight where permits are held while somebody waits: one pool alone gets half of them.
pub(super) const WAITING: usize = 1;
/// The weight where permits are held for a moment: one pool alone gets eight ninths of them. A smaller weight
/// would slow a server that has one pool.
pub(super) const AT_WORK: usize = 8;

/// Permits beyond those that are shared: for pools that hold few, where many others hold all that is shared.
pub(super) const RESERVE: usize = 1024;
/// A pool that holds fewer may take of the reserve.
const FEW: usize = 32;

/// Whether a pool that holds `held` permits may take one more while `left` are free. `reserve` of these are kept for
/// pools that hold few.
pub(super) fn may_take(held: usize, left: usize, reserve: usize, weight: usize) -> bool {
    let is_reserved = reserve > 0 && left > 0 && held < FEW;
    is_reserved || held < left.saturating_sub(reserve).saturating_mul(weight)
}

/// What each pool's calls hold, or each origin's. The names are callers': one that holds nothing is forgotten.
#[derive(Debug, Default)]
pub(super) struct Shares {
    weights: Weights,
    state: Mutex<Pools>,
}

/// What one of those who share may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weights {
    /// Of the permits for calls that are not answered, as many as are left, divided by this.
    present_part: usize,
    /// Of those for calls at work, as many as are left times this.
    at_work: usize,
}

impl Default for Weights {
    /// Those of pools, and of origins in all of them.
    fn default() -> Self {
        Self { present_part: 1, at_work: AT_WORK }
    }
}

impl Weights {
    /// Those of origins in a pool: less than the pool may hold, so that there is room for others in it. One alone has a
    /// third of the calls that are not answered, and four fifths of those at work.
    pub(super) const IN_POOL: Self = Self { present_part: 2, at_work: 4 };
}

/// So many pools may each have one call of a class at work beyond the limit. Otherwise one pool's burst, for which the
/// limit fell, would have all others refused until it is done.
const FIRST_CALLS: usize = 64;

/// The calls of all pools.
#[derive(Debug, Default)]
struct Pools {
    by_name: HashMap<Arc<str>, PoolCalls>,
    /// How many of them have calls at work, by class.
    at_work: [usize; Class::ALL.len()],
}

/// A permit of a share.
#[derive(Debug)]
pub(super) struct Share {
    pub(super) name: Arc<str>,
    /// It is the only one of its pool at work, and may be beyond the limit.
    pub(super) is_first: bool,
}

/// A pool that has calls.
#[derive(Debug)]
struct PoolCalls {
    /// Its name, which its calls share.
    name: Arc<str>,
    held: [Held; Class::ALL.len()],
}

/// What a pool's calls of a class hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Held {
    present: usize,
    at_work: usize,
}

/// How many permits are left for a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Left {
    /// Of those for calls that are not answered yet, the reserve with them.
    pub(super) present: usize,
    /// Of those for calls at work; `None` for a class that is always at work.
    pub(super) at_work: Option<usize>,
}

impl Shares {
    pub(super) fn new(weights: Weights) -> Self {
        Self { weights, state: Mutex::default() }
    }

    /// Counts a call of a pool, if the pool's share allows one more. `is_beyond`: it may be at work whatever is left.
    pub(super) fn take(
        &self,
        pool: &str,
        class: Class,
        left: Left,
        is_beyond: bool,
    ) -> Option<Share> {
        let mut pools = self.lock();
        let Pools { by_name, at_work } = &mut *pools;
        let held = by_name.get(pool).map(|calls| calls.held[class as usize]).unwrap_or_default();
        let is_first = held.at_work == 0 && at_work[class as usize] < FIRST_CALLS;
        let Weights { present_part, at_work: weight } = self.weights;
        let may_work = is_first
            || is_beyond
            || left.at_work.is_none_or(|left| may_take(held.at_work, left, 0, weight));
        if !may_work || !may_take(held.present * present_part, left.present, RESERVE, WAITING) {
            return None;
        }
        let calls = match by_name.get_mut(pool) {
            Some(calls) => calls,
            None => {
                let name: Arc<str> = Arc::from(pool);
                by_name
                    .entry(Arc::clone(&name))
                    .or_insert(PoolCalls { name, held: Default::default() })
            }
        };
        let held = &mut calls.held[class as usize];
        held.present += 1;
        held.at_work += 1;
        at_work[class as usize] += usize::from(held.at_work == 1);
        Some(Share { name: Arc::clone(&calls.name), is_first })
    }

    /// A call of the pool is not at work any more.
    pub(super) fn step_aside(&self, pool: &str, class: Class) {
        self.lock().end_work(pool, class);
    }

    /// A call of the pool is answered; `is_at_work` where it has not stepped aside before.
    pub(super) fn leave(&self, pool: &str, class: Class, is_at_work: bool) {
        let mut pools = self.lock();
        if is_at_work {
            pools.end_work(pool, class);
        }
        let Some(calls) = pools.by_name.get_mut(pool) else { return };
        let held = &mut calls.held[class as usize];
        held.present = held.present.saturating_sub(1);
        if calls.held.iter().all(|held| *held == Held::default()) {
            pools.by_name.remove(pool);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pools> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many pools have calls.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().by_name.len()
    }
}

impl Pools {
    fn end_work(&mut self, pool: &str, class: Class) {
        let Some(calls) = self.by_name.get_mut(pool) else { return };
        let held = &mut calls.held[class as usize];
        if held.at_work > 0 {
            held.at_work -= 1;
            self.at_work[class as usize] -= usize::from(held.at_work == 0);
        }
    }
}
