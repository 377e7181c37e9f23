//! A share for each pool, so that one pool's calls never keep out another's.
//!
//! The rule is a switch's, for its queues in one memory (Choudhury and Hahne, 1998): a pool may hold as many
//! permits as there are left, times a weight. Nothing has to be configured: one pool alone gets nearly all, or
//! half, by the weight; with more pools each gets less; and something is always left for one that comes anew.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::Class;

/// The weight where permits are held for as long as somebody waits: one pool alone gets half of them.
pub(super) const WAITING: usize = 1;
/// The weight where permits are held for a moment: one pool alone gets eight ninths of them. A smaller weight
/// would slow a server that has one pool.
pub(super) const AT_WORK: usize = 8;

/// Whether a pool that holds `held` permits may take one more while `left` are free.
pub(super) fn may_take(held: usize, left: usize, weight: usize) -> bool {
    held < left.saturating_mul(weight)
}

/// What each pool's calls hold. The names are callers': a pool that holds nothing is forgotten.
#[derive(Debug, Default)]
pub(super) struct Shares(Mutex<HashMap<Arc<str>, Known>>);

/// A pool that has calls.
#[derive(Debug)]
struct Known {
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

impl Held {
    fn end_work(&mut self) {
        self.at_work = self.at_work.saturating_sub(1);
    }
}

/// How many permits are left for a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Left {
    /// Of those for calls that are not answered yet.
    pub(super) present: usize,
    /// Of those for calls at work; `None` for a class that is always at work.
    pub(super) at_work: Option<usize>,
}

impl Shares {
    /// Counts a call of a pool, if the pool's share allows one more.
    pub(super) fn take(&self, pool: &str, class: Class, left: Left) -> Option<Arc<str>> {
        let mut pools = self.lock();
        let known = pools.get_mut(pool);
        let held = known.as_ref().map(|known| known.held[class as usize]).unwrap_or_default();
        let may_work = left.at_work.is_none_or(|left| may_take(held.at_work, left, AT_WORK));
        if !may_work || !may_take(held.present, left.present, WAITING) {
            return None;
        }
        let known = match known {
            Some(known) => known,
            None => {
                let name: Arc<str> = Arc::from(pool);
                pools.entry(Arc::clone(&name)).or_insert(Known { name, held: Default::default() })
            }
        };
        let held = &mut known.held[class as usize];
        held.present += 1;
        held.at_work += 1;
        Some(Arc::clone(&known.name))
    }

    /// A call of the pool is not at work any more.
    pub(super) fn step_aside(&self, pool: &str, class: Class) {
        if let Some(known) = self.lock().get_mut(pool) {
            known.held[class as usize].end_work();
        }
    }

    /// A call of the pool is answered; `is_at_work` where it has not stepped aside before.
    pub(super) fn leave(&self, pool: &str, class: Class, is_at_work: bool) {
        let mut pools = self.lock();
        let Some(known) = pools.get_mut(pool) else { return };
        let held = &mut known.held[class as usize];
        if is_at_work {
            held.end_work();
        }
        held.present = held.present.saturating_sub(1);
        if known.held.iter().all(|held| *held == Held::default()) {
            pools.remove(pool);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many pools have calls.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }
}
