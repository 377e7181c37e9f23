//! A share for each pool, so that one pool's calls never keep out another's.
//!
//! The rule is a switch's, for its queues in one memory (Choudhury and Hahne, 1998): a pool may hold as many
//! permits as there are left, times a weight. Nothing has to be configured: one pool alone gets nearly all, or
//! half, by the weight; with more pools each gets less; and something is always left for one that comes anew.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::Class;

/// The weight where permits are held for as long as somebody waits: one pool alone gets half of them.
pub(super) const WAITING: usize = 1;
/// The weight where permits are held for a moment: one pool alone gets eight ninths of them. A smaller weight
/// would slow a server that has one pool.
pub(super) const AT_WORK: usize = 8;

/// Permits beyond those that are shared: for pools that hold few, where many others hold all that is shared.
pub(super) const RESERVE: usize = 1024;
/// A pool that holds fewer may take of the reserve.
const FEW: usize = 32;

/// Whether a pool that holds `held` permits may take one more while `left` are free, of which `reserve` are kept for
/// pools that hold few.
pub(super) fn may_take(held: usize, left: usize, reserve: usize, weight: usize) -> bool {
    let is_reserved = reserve > 0 && left > 0 && held < FEW;
    is_reserved || held < left.saturating_sub(reserve).saturating_mul(weight)
}

/// What each pool's calls hold. The names are callers': a pool that holds nothing is forgotten.
#[derive(Debug, Default)]
pub(super) struct Shares(Mutex<HashMap<Arc<str>, [Held; Class::ALL.len()]>>);

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
    /// Counts a call of a pool, if the pool's share allows one more.
    pub(super) fn take(&self, pool: &str, class: Class, left: Left) -> Option<Arc<str>> {
        let mut pools = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let held = pools.get(pool).map(|held| held[class as usize]).unwrap_or_default();
        let may_work = left.at_work.is_none_or(|left| may_take(held.at_work, left, 0, AT_WORK));
        if !may_work || !may_take(held.present, left.present, RESERVE, WAITING) {
            return None;
        }
        let name = match pools.get_key_value(pool) {
            Some((name, _)) => Arc::clone(name),
            None => Arc::from(pool),
        };
        let held = &mut pools.entry(Arc::clone(&name)).or_default()[class as usize];
        held.present += 1;
        held.at_work += 1;
        Some(name)
    }

    /// A call of the pool is not at work any more.
    pub(super) fn step_aside(&self, pool: &str, class: Class) {
        let mut pools = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = pools.get_mut(pool) {
            held[class as usize].at_work = held[class as usize].at_work.saturating_sub(1);
        }
    }

    /// A call of the pool, which has stepped aside, is answered.
    pub(super) fn leave(&self, pool: &str, class: Class) {
        let mut pools = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = pools.get_mut(pool) {
            held[class as usize].present = held[class as usize].present.saturating_sub(1);
            if held.iter().all(|held| *held == Held::default()) {
                pools.remove(pool);
            }
        }
    }

    /// How many pools have calls.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}
