//! Slow criteria, which make a statement read much: labels that few accounts carry, amounts that fit few.
//!
//! A waiter with such criteria must not hold up the others, so it is not part of the dispatcher's pass. They are
//! checked beside it, at most one of a [`Kind`] at a time for a pool. Each is checked again only after ten times
//! as long as its statement took. An account that comes free on this server is offered to them at once, by its
//! name, which reads nothing else.
//!
//! New criteria are tried in the pass, which goes on without them after a moment. In a
//! pool of few accounts no criteria are slow: reading them all takes little. A time alone does not tell a
//! statement that reads much from one that waits for a busy machine.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use tokio::time::Instant;

use super::wait_queue::Criteria;
use crate::{
    domain::id::AccountId,
    failpoints::{self, Guard},
    store::{acquire::Selector, scan::Freed},
};

/// How long a pass waits for a statement of new criteria.
const PATIENCE: Duration = Duration::from_millis(50);
/// Criteria whose statement takes longer, and leaves somebody without, are slow.
const LONG: Duration = Duration::from_millis(10);
/// Both are shorter where other such statements have taken much of the pass, but not shorter than this.
const BRIEF: Duration = Duration::from_millis(1);
/// Criteria whose statement takes longer are slow, also where it finds enough.
const LONG_IN_ANY_CASE: Duration = Duration::from_millis(50);
/// A pool of no more accounts is read in a few milliseconds.
pub(super) const FEW_ACCOUNTS: i64 = 5000;
/// For each account that it leased it may take so much longer.
const FOR_EACH_LEASE: Duration = Duration::from_millis(10);
/// Slow criteria are checked again after so many times as long as their statement took,
const TIMES: u32 = 10;
/// but after this time in any case.
const LONGEST: Duration = Duration::from_secs(30);
/// Of how many criteria it is remembered how long they take.
const MAX_REMEMBERED: usize = 1024;
/// How many free accounts are offered to those who wait with the same criteria, before their next check.
const MAX_OFFERED: usize = 8;
/// The pause after an offered account that did not fit. It doubles each time,
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// so often: about a second.
const MAX_DOUBLINGS: u32 = 8;
/// So few ids are compared with each account that is read.
const FEW_IDS: usize = 16;

/// What may make a statement read accounts that do not fit. One statement of a kind runs beside the pass, so
/// that neither kind waits for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The amount of the card alone.
    Amount,
    /// What the selector says of accounts beyond their plan.
    Filter,
}

impl Kind {
    pub(super) const ALL: [Self; 2] = [Self::Amount, Self::Filter];
}

/// None: a waiter with such criteria is served in the pass, whatever it takes.
pub(super) fn kind(criteria: &Criteria) -> Option<Kind> {
    let selector = &criteria.selector;
    let is_filter = selector.country_code.is_some()
        || selector.card_country.is_some()
        || selector.min_headroom_minor.is_some()
        || !selector.labels.is_empty()
        || selector.exclude.len() > FEW_IDS;
    match selector {
        // It is found by its key.
        _ if selector.account_id.is_some() => None,
        _ if is_filter => Some(Kind::Filter),
        _ => criteria.expected_minor.map(|_| Kind::Amount),
    }
}

/// How long a pass waits for new criteria, when statements that left somebody without have taken
/// `used` of it.
pub(super) fn patience_after(used: Duration) -> Duration {
    PATIENCE.saturating_sub(used / 2).max(BRIEF)
}

/// How long a statement may take that left somebody without. Together they take about twice [`LONG`] of a pass, however
/// many they are.
fn limit_after(used: Duration) -> Duration {
    LONG.saturating_sub(used / 2).max(BRIEF)
}

/// What is remembered of some criteria.
#[derive(Debug)]
enum Remembered {
    Quick,
    Slow(Slow),
}

#[derive(Debug)]
struct Slow {
    /// When a waiter that was tried before is tried again.
    again_at: Instant,
    /// When somebody may be tried who never was.
    first_at: Instant,
    offers: Offers,
}

/// Accounts that came free and may fit some criteria.
#[derive(Debug, Default)]
struct Offers {
    accounts: Vec<AccountId>,
    /// How many in a row did not fit.
    vain: u32,
    /// Until when no other is tried.
    until: Option<Instant>,
}

impl Offers {
    fn are_due(&self) -> bool {
        !self.accounts.is_empty() && self.until.is_none_or(|until| until <= Instant::now())
    }

    fn note(&mut self, is_taken: bool) {
        self.vain = if is_taken { 0 } else { (self.vain + 1).min(MAX_DOUBLINGS) };
        self.until = (!is_taken).then(|| Instant::now() + FIRST_PAUSE * 2u32.pow(self.vain));
    }
}

/// How a waiter is served in a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// By a statement that the pass waits for.
    Now,
    /// By the first statement with these criteria: the pass waits for it for a moment.
    First(Kind),
    /// By the accounts that are offered.
    Offered,
}

/// See [the module](self).
#[derive(Debug, Default)]
pub(super) struct SlowCriteria {
    remembered: HashMap<Criteria, Remembered>,
    /// The pool has more accounts than [`FEW_ACCOUNTS`].
    is_large: bool,
}

impl SlowCriteria {
    /// Whether the pool has more accounts than [`FEW_ACCOUNTS`].
    pub(super) fn is_large(&self) -> bool {
        self.is_large
    }

    /// Says whether the pool has more accounts than [`FEW_ACCOUNTS`].
    pub(super) fn set_large(&mut self, is_large: bool) {
        let is_large = is_large && failpoints::holds(Guard::SlowCriteriaLeaveThePass);
        self.is_large = is_large;
        if !is_large {
            self.remembered.clear();
        }
    }

    /// How a waiter with these criteria is served now; none: not in this pass. `is_free`: no statement of the kind
    /// is running beside it.
    pub(super) fn how(&self, criteria: &Criteria, is_free: impl Fn(Kind) -> bool) -> Option<How> {
        let Some(kind) = kind(criteria).filter(|_| self.is_large) else { return Some(How::Now) };
        match self.remembered.get(criteria) {
            Some(Remembered::Quick) => Some(How::Now),
            Some(Remembered::Slow(slow)) => slow.offers.are_due().then_some(How::Offered),
            None => is_free(kind).then_some(How::First(kind)),
        }
    }

    /// Notes how long a statement took for each of its criteria that ends now, and how many leases it gave;
    /// `is_enough`: nobody with these criteria was left without. `used` is how much of its patience the pass has
    /// used.
    pub(super) fn note(
        &mut self,
        criteria: Criteria,
        took: Duration,
        leases: usize,
        is_enough: bool,
        used: Duration,
    ) {
        self.note_at(Instant::now(), criteria, took, leases, is_enough, used);
    }

    fn note_at(
        &mut self,
        now: Instant,
        criteria: Criteria,
        took: Duration,
        leases: usize,
        is_enough: bool,
        used: Duration,
    ) {
        if !self.is_large || kind(&criteria).is_none() {
            return;
        }
        let leases = u32::try_from(leases).unwrap_or(u32::MAX);
        let limit = if is_enough {
            LONG_IN_ANY_CASE + FOR_EACH_LEASE.saturating_mul(leases)
        } else {
            limit_after(used)
        };
        let remembered = if took < limit {
            Remembered::Quick
        } else {
            let pause = if is_enough { Duration::ZERO } else { (took * TIMES).min(LONGEST) };
            let first_at = now + pause.min(took);
            // What came free while it ran may not have been seen.
            let offers = match self.remembered.remove(&criteria) {
                Some(Remembered::Slow(slow)) => slow.offers,
                _ => Offers::default(),
            };
            Remembered::Slow(Slow { again_at: now + pause, first_at, offers })
        };
        self.remembered.insert(criteria, remembered);
    }

    /// An account came free: those whom it may fit are offered it.
    pub(super) fn offer(&mut self, freed: &Freed) {
        for (criteria, remembered) in &mut self.remembered {
            if let Remembered::Slow(slow) = remembered
                && slow.offers.accounts.len() < MAX_OFFERED
                && let Some(account_id) = freed.account_for(&criteria.selector)
                && !slow.offers.accounts.contains(account_id)
            {
                slow.offers.accounts.push(account_id.clone());
            }
        }
    }

    /// Takes out the accounts that are offered to those with this selector.
    pub(super) fn take_offered(&mut self, selector: &Selector) -> Vec<AccountId> {
        let mut offered = Vec::new();
        for (criteria, remembered) in &mut self.remembered {
            if let Remembered::Slow(slow) = remembered
                && *criteria.selector == *selector
                && slow.offers.are_due()
            {
                offered.append(&mut slow.offers.accounts);
            }
        }
        offered.sort();
        offered.dedup();
        offered
    }

    /// Says whether somebody with these criteria took an account that was offered. Where none fits the next is tried
    /// later each time: only a statement can tell, and there may be many such criteria.
    pub(super) fn note_offered(&mut self, criteria: &Criteria, is_taken: bool) {
        if let Some(Remembered::Slow(slow)) = self.remembered.get_mut(criteria) {
            slow.offers.note(is_taken);
        }
    }

    /// A statement that was not waited for goes on beside the pass.
    pub(super) fn left_the_pass(&mut self, criteria: Criteria) {
        self.note(criteria, PATIENCE, 0, false, Duration::ZERO);
    }

    /// Accounts or plans were changed: what was in vain before may not be any more.
    pub(super) fn changed(&mut self) {
        for remembered in self.remembered.values_mut() {
            if let Remembered::Slow(slow) = remembered {
                slow.again_at = slow.first_at.min(slow.again_at);
            }
        }
    }

    /// Whether somebody with these criteria may have had no attempt yet although a pass has ended.
    pub(super) fn may_have_waited(&self, criteria: &Criteria) -> bool {
        self.may_be_slow(criteria)
            && !matches!(self.remembered.get(criteria), Some(Remembered::Quick))
    }

    /// Whether a statement with these criteria may read much.
    pub(super) fn may_be_slow(&self, criteria: &Criteria) -> bool {
        self.is_large && kind(criteria).is_some()
    }

    /// When slow criteria may be checked for somebody who was tried before or not; none: they are not slow.
    pub(super) fn due_at(&self, criteria: &Criteria, is_tried: bool) -> Option<Instant> {
        match self.remembered.get(criteria)? {
            Remembered::Quick => None,
            Remembered::Slow(slow) if is_tried => Some(slow.again_at),
            Remembered::Slow(slow) => Some(slow.first_at),
        }
    }

    /// Forgets criteria that nobody waits with, when they have become too many.
    pub(super) fn forget_but(&mut self, waiting: impl FnOnce() -> HashSet<Criteria>) {
        if self.remembered.len() > MAX_REMEMBERED {
            let waiting = waiting();
            self.remembered.retain(|criteria, _| waiting.contains(criteria));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn criteria(label: &str, expected_minor: Option<i64>) -> Criteria {
        let labels = match label {
            "" => [].into(),
            label => [("label".to_owned(), label.to_owned())].into(),
        };
        Criteria { selector: Arc::new(Selector { labels, ..Selector::default() }), expected_minor }
    }

    fn named(criteria: Criteria) -> Criteria {
        let account_id = AccountId::parse("a").ok();
        Criteria {
            selector: Arc::new(Selector { account_id, ..(*criteria.selector).clone() }),
            ..criteria
        }
    }

    fn of_a_large_pool() -> SlowCriteria {
        SlowCriteria { is_large: true, ..SlowCriteria::default() }
    }

    #[test]
    fn in_a_pool_of_few_accounts_nothing_is_slow() {
        let mut slow = SlowCriteria::default();
        slow.note(criteria("x", None), Duration::from_secs(10), 0, false, NO_TIME);
        assert_eq!(slow.how(&criteria("x", None), |_| false), Some(How::Now));
    }

    const NO_TIME: Duration = Duration::ZERO;

    #[test]
    fn criteria_are_of_a_kind_by_what_they_may_read() {
        assert_eq!(kind(&criteria("", None)), None);
        assert_eq!(kind(&criteria("", Some(5))), Some(Kind::Amount));
        assert_eq!(kind(&criteria("x", None)), Some(Kind::Filter));
        assert_eq!(kind(&criteria("x", Some(5))), Some(Kind::Filter));
        assert_eq!(kind(&named(criteria("x", Some(5)))), None, "it is found by its key");
    }

    #[test]
    fn slow_criteria_leave_the_pass_and_are_checked_after_ten_times_as_long() {
        let mut slow = of_a_large_pool();
        let how =
            |slow: &SlowCriteria, criteria: &Criteria, free: bool| slow.how(criteria, |_| free);
        let x = criteria("x", None);
        let now = Instant::now();
        assert_eq!(how(&slow, &x, true), Some(How::First(Kind::Filter)));
        assert_eq!(how(&slow, &x, false), None, "until the other statement has ended");
        slow.note_at(now, x.clone(), LONG / 2, 0, false, NO_TIME);
        assert_eq!(how(&slow, &x, false), Some(How::Now));
        slow.note_at(now, x.clone(), LONG, 0, false, NO_TIME);
        assert_eq!(how(&slow, &x, true), None);
        assert_eq!(slow.due_at(&x, true), Some(now + LONG * TIMES));
        assert_eq!(slow.due_at(&x, false), Some(now + LONG));
        slow.note_at(now, x.clone(), Duration::from_secs(10), 0, false, NO_TIME);
        assert_eq!(slow.due_at(&x, true), Some(now + LONGEST));
        slow.changed();
        assert_eq!(slow.due_at(&x, true), Some(now + Duration::from_secs(10)));
        slow.note_at(now, x.clone(), Duration::from_secs(1), 1, true, NO_TIME);
        assert_eq!(slow.due_at(&x, true), Some(now), "the next waiter may find one too");
        slow.note_at(now, x.clone(), BRIEF, 0, false, LONG * 2);
        assert_eq!(how(&slow, &x, true), None, "where many take a little each");
    }

    #[test]
    fn criteria_that_read_nothing_more_are_always_served_in_the_pass() {
        let mut slow = of_a_large_pool();
        slow.note(criteria("", None), Duration::from_secs(10), 0, false, NO_TIME);
        assert_eq!(slow.how(&criteria("", None), |_| false), Some(How::Now));
    }

    #[test]
    fn what_does_not_fit_is_offered_less_and_less_often() {
        let mut offers = Offers::default();
        let pause = |offers: &Offers| offers.until.map(|until| until - Instant::now());
        for _ in 0..20 {
            offers.note(false);
        }
        assert!(pause(&offers).unwrap() > Duration::from_secs(1));
        assert!(pause(&offers).unwrap() < Duration::from_secs(2));
        offers.accounts.push(AccountId::parse("a").unwrap());
        assert!(!offers.are_due());
        offers.note(true);
        assert!(offers.are_due());
    }

    #[test]
    fn many_leases_may_take_longer() {
        let mut slow = of_a_large_pool();
        slow.note(criteria("x", None), Duration::from_secs(1), 100, true, NO_TIME);
        assert_eq!(slow.how(&criteria("x", None), |_| false), Some(How::Now));
    }
}
