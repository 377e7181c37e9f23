//! The wait queue of a pool: who waits for an account, and the order in which they are served.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use tokio::{sync::oneshot, time::Instant};

use crate::{
    admission::Caller,
    domain::{choice::Criteria, id::Holder, principal::RequestKey, redemption::Begun},
    service::Error,
    store::acquire::{Acquired, Wanted},
};

/// The most requests that are served at once.
pub(super) const MAX_ROWS: usize = 256;
/// How many of the last leases that were handed out tell who has had how much.
const REMEMBERED: usize = 32;
/// How many criteria are kept for those who ask for the same.
const MAX_CRITERIA: usize = 1024;
/// So few tell nothing.
const TELLING: usize = 8;

/// What somebody gets who waits.
#[derive(Debug)]
pub(super) enum Taken {
    /// A lease.
    Leased(Box<Acquired>),
    /// What became of the redemption that was to be begun with the lease.
    Begun(Box<Begun>),
    /// No account is free for the card now.
    NotNow,
    /// The same; but one was chosen before, and whether the redemption was begun then is not known for certain.
    Unknown,
}

/// Somebody who waits.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) wanted: Wanted,
    /// What it asks for. Those who ask for the same share it.
    pub(super) criteria: Arc<Criteria>,
    /// Which part of the leases one holder may get while others wait, as the pool says now.
    pub(super) share_percent: i32,
    /// A higher one is served first.
    pub(super) priority: u8,
    pub(super) since: Instant,
    pub(super) until: Instant,
    /// Who asks.
    pub(super) caller: Caller,
    /// It was tried to find an account for it.
    pub(super) tried: bool,
    /// An account was found, and is being leased.
    pub(super) is_claimed: bool,
    /// One was found at some time.
    pub(super) was_claimed: bool,
    /// How often it was read whether the request has a lease already.
    pub(super) lookups: u8,
    /// It was tried, and there was no database.
    pub(super) unanswered: bool,
    pub(super) reply: oneshot::Sender<Result<Taken, Error>>,
}

impl Waiter {
    /// Whether nobody waits for the answer. What is being begun for a card is answered also when the call is over.
    pub(super) fn is_gone(&self) -> bool {
        self.reply.is_closed() || self.caller.is_over() && !self.is_being_begun()
    }

    /// Whether a redemption is being written for it: only who gets the answer sends that.
    pub(super) fn is_being_begun(&self) -> bool {
        self.is_claimed && self.wanted.begins.is_some()
    }
}

/// The wait queue. Higher priorities first, and of the same first come, first served; but a holder that is over its share
/// waits behind the others.
#[derive(Debug, Default)]
pub(super) struct WaitQueue {
    /// In the order of arrival.
    waiting: VecDeque<Waiter>,
    /// What they ask for, each once.
    criteria: HashSet<Arc<Criteria>>,
    /// The requests for which accounts are being leased. Whoever comes with one of them gets the same lease.
    claimed: HashSet<RequestKey>,
    /// To whom the last leases went.
    given: VecDeque<Holder>,
    share_percent: usize,
}

impl WaitQueue {
    pub(super) fn push(&mut self, mut waiter: Waiter) {
        self.share_percent = usize::try_from(waiter.share_percent).unwrap_or(0);
        if let Some(same) = self.criteria.get(&waiter.criteria) {
            waiter.criteria = Arc::clone(same);
        } else {
            if self.criteria.len() >= MAX_CRITERIA {
                self.criteria.clear();
            }
            self.criteria.insert(Arc::clone(&waiter.criteria));
        }
        waiter.is_claimed = self.claimed.contains(&waiter.wanted.request);
        self.waiting.push_back(waiter);
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Everybody, in the order of arrival.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Waiter> {
        self.waiting.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Waiter> {
        self.waiting.iter_mut()
    }

    /// Removes those who do not wait any more. Answers how many of them no statement had tried to serve.
    pub(super) fn drop_gone(&mut self) -> usize {
        let mut untried = 0;
        self.waiting.retain(|waiter| {
            let gone = waiter.is_gone();
            untried += usize::from(gone && !waiter.tried);
            !gone
        });
        untried
    }

    /// Notes who is tried now: those with these requests, for whom an account is claimed or who may have a lease
    /// already, and maybe all others. Answers when the last of those arrived for whom it is the first time.
    pub(super) fn try_now(
        &mut self,
        claimed: &HashSet<RequestKey>,
        again: &[RequestKey],
        all: bool,
    ) -> Option<Instant> {
        let mut arrived = None;
        self.claimed.extend(claimed.iter().cloned());
        for waiter in &mut self.waiting {
            let is_claimed = claimed.contains(&waiter.wanted.request);
            waiter.is_claimed |= is_claimed;
            waiter.was_claimed |= is_claimed;
            let is_again = again.contains(&waiter.wanted.request);
            waiter.lookups = waiter.lookups.saturating_add(u8::from(is_again));
            if (all || is_claimed) && !std::mem::replace(&mut waiter.tried, true) {
                arrived = arrived.max(Some(waiter.since));
            }
        }
        arrived
    }

    /// Notes that nothing is claimed for these requests any more.
    pub(super) fn claimed(&mut self, requests: &HashSet<RequestKey>) {
        self.claimed.retain(|request| !requests.contains(request));
        for waiter in &mut self.waiting {
            waiter.is_claimed &= !requests.contains(&waiter.wanted.request);
        }
    }

    /// Takes out everybody for whom `take` gives something.
    pub(super) fn take<T>(
        &mut self,
        mut take: impl FnMut(&Waiter) -> Option<T>,
    ) -> Vec<(Waiter, T)> {
        let mut taken = Vec::new();
        for waiter in std::mem::take(&mut self.waiting) {
            match take(&waiter) {
                Some(value) => taken.push((waiter, value)),
                None => self.waiting.push_back(waiter),
            }
        }
        taken
    }

    /// Puts a waiter back that was taken out, at its old position.
    pub(super) fn put_back(&mut self, waiter: Waiter) {
        let position = self.waiting.partition_point(|other| other.since <= waiter.since);
        self.waiting.insert(position, waiter);
    }

    /// Notes that a lease went to `holder`.
    pub(super) fn given(&mut self, holder: &Holder) {
        self.given.push_back(holder.clone());
        if self.given.len() > REMEMBERED {
            self.given.pop_front();
        }
    }

    /// The holders that are over their share of the last leases.
    fn over_share(&self) -> HashSet<&Holder> {
        // A share of all is no limit.
        if self.given.len() < TELLING || self.share_percent >= 100 {
            return HashSet::new();
        }
        let mut times: HashMap<&Holder, usize> = HashMap::new();
        for holder in &self.given {
            *times.entry(holder).or_default() += 1;
        }
        let waiting: HashSet<&Holder> =
            self.waiting.iter().map(|waiter| &waiter.wanted.holder).collect();
        // Among many each one's share is less than the pool's; but a few leases are nobody's too many.
        let share = self.share_percent.min(100 / waiting.len().max(1));
        let most = (self.given.len() * share / 100).max(TELLING / 2);
        times.into_iter().filter(|(_, times)| *times > most).map(|(holder, _)| holder).collect()
    }

    /// Everybody, in the order in which they are served.
    fn in_order(&self) -> impl Iterator<Item = &Waiter> {
        let over_share = self.over_share();
        let mut waiting: Vec<_> = self.waiting.iter().collect();
        // Stable: of the same, in the order of arrival.
        waiting.sort_by_key(|waiter| {
            (over_share.contains(&waiter.wanted.holder), Reverse(waiter.priority))
        });
        waiting.into_iter()
    }

    /// Everybody's position, counted from 1, by request.
    pub(super) fn positions(&self) -> HashMap<RequestKey, usize> {
        self.in_order()
            .enumerate()
            .map(|(before, waiter)| (waiter.wanted.request.clone(), before + 1))
            .collect()
    }

    /// Those who may be served, in the order in which they are. The same request twice is served once: the second gets
    /// the lease of the first.
    pub(super) fn servable(&self) -> Vec<&Waiter> {
        let mut requests = HashSet::new();
        let waiting = self.in_order().filter(|waiter| !waiter.is_gone() && !waiter.is_claimed);
        waiting.filter(|waiter| requests.insert(&waiter.wanted.request)).collect()
    }
}

#[cfg(test)]
mod tests;
