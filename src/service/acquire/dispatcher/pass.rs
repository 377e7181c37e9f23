//! A pass of the dispatcher: those who wait are served, in their order, until nobody more can be. And what runs beside
//! it, for criteria that are slow.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::{task::JoinError, time::Instant};

use super::{
    super::{
        side_statements::{Attempt, Attempted},
        slow::{FEW_ACCOUNTS, How, Kind, kind, patience_after},
        wait_queue::{Criteria, Waiter},
    },
    Dispatcher,
};
use crate::{
    domain::id::RequestId,
    service::Error,
    store::{
        StoreError,
        acquire::{Selector, Wanted},
        scan::ScanCursors,
    },
};

/// No statement of ours takes longer. One that does not end before this was not stopped for want of a database.
const NEARLY_TIMED_OUT: Duration = Duration::from_secs(10);
/// How often it is found out whether a pool has many accounts.
const COUNT_AT_MOST_EVERY: Duration = Duration::from_secs(60);

/// What a pass knows.
#[derive(Default)]
struct Pass {
    /// Criteria that found nothing in it.
    exhausted: HashSet<Criteria>,
    /// How long statements took that left somebody without, of criteria that may make them slow.
    used: Duration,
}

impl Dispatcher {
    /// Serves those who wait, until nobody more can be. Says why when there was no database.
    pub(super) async fn serve(&mut self) -> Result<(), String> {
        let mut pass = Pass::default();
        self.count_accounts().await;
        let mut freed = self.freed.count();
        // A pass must end even while accounts come back all the time: others arrive, and time passes.
        let mut restarts = 4;
        loop {
            // What became free meanwhile is theirs first who were tried in vain before.
            let freed_now = self.freed.count();
            if std::mem::replace(&mut freed, freed_now) != freed_now && restarts > 0 {
                restarts -= 1;
                pass.exhausted.clear();
            }
            self.note_freed();
            let next = self.queue.next_group(|criteria| self.how(&pass, criteria));
            let Some((how, selector, wanted)) = next else {
                // Those who are left wait for an account, which is no work.
                self.queue.iter().for_each(|waiter| waiter.caller.step_aside());
                return Ok(());
            };
            match how {
                How::Offered => self.try_offered(&selector, &wanted).await?,
                How::Now | How::First(_) => {
                    self.try_group(&mut pass, how, selector, wanted).await?
                }
            }
        }
    }

    /// Finds out whether the pool has so many accounts that criteria may be slow, when somebody waits with such.
    async fn count_accounts(&mut self) {
        let is_fresh = self.counted_at.is_some_and(|at| at.elapsed() < COUNT_AT_MOST_EVERY);
        if is_fresh || !self.queue.iter().any(|waiter| kind(&waiter.criteria()).is_some()) {
            return;
        }
        match self.store.has_more_accounts(&self.pool_id, FEW_ACCOUNTS).await {
            Ok(has_more) => {
                self.slow.set_large(has_more);
                self.counted_at = Some(Instant::now());
            }
            Err(error) => {
                tracing::debug!(pool_id = %self.pool_id, %error, "a pool's accounts could not be counted");
            }
        }
    }

    /// How a waiter with these criteria is served in this pass, if at all.
    fn how(&self, pass: &Pass, criteria: &Criteria) -> Option<How> {
        if pass.exhausted.contains(criteria) || self.side.is_for(criteria) {
            return None;
        }
        self.slow.how(criteria, |kind| self.side.is_free(kind))
    }

    /// Tells the cursors, and those who wait with slow criteria, what became free.
    fn note_freed(&mut self) {
        let (accounts, is_changed) = self.freed.take();
        for freed in &accounts {
            self.cursors.note_freed(freed);
            self.slow.offer(freed);
        }
        if is_changed {
            self.cursors.forget();
            self.slow.changed();
            // There may be more accounts now.
            self.counted_at = self.counted_at.filter(|_| self.slow.is_large());
        }
    }

    /// Runs the statement for some who ask for the same, and hands out what it finds. One with new criteria
    /// is waited for only for a moment.
    async fn try_group(
        &mut self,
        pass: &mut Pass,
        how: How,
        selector: Arc<Selector>,
        wanted: Vec<Wanted>,
    ) -> Result<(), String> {
        let is_new = self.note_tried(&wanted);
        let attempt = self.attempt(selector, wanted, is_new);
        let attempted = match how {
            How::First(kind) => {
                let patience = patience_after(pass.used);
                let begun = Instant::now();
                let all_criteria = attempt.criteria();
                let attempted = self.side.start(kind, attempt, patience).await;
                if attempted.is_none() {
                    pass.used += begun.elapsed();
                    // From now on they are offered what comes free.
                    all_criteria.into_iter().for_each(|criteria| self.slow.left_the_pass(criteria));
                }
                attempted
            }
            _ => Some(Ok(attempt.run().await)),
        };
        if is_new {
            self.meter.ends();
        }
        match attempted {
            // It goes on beside the pass.
            None => Ok(()),
            Some(Ok(attempted)) => self.conclude(pass, attempted).await,
            Some(Err(error)) => Err(format!("a task that acquired ended: {error}")),
        }
    }

    /// Notes that a statement is about to try to serve the requests. True when it is the first try for one of them.
    fn note_tried(&mut self, wanted: &[Wanted]) -> bool {
        let requests = wanted.iter().map(|w| &w.request_id).collect();
        let arrived = self.queue.try_now(&requests);
        if let Some(arrived) = arrived {
            self.meter.begins(arrived);
        }
        arrived.is_some()
    }

    fn attempt(&mut self, selector: Arc<Selector>, wanted: Vec<Wanted>, is_new: bool) -> Attempt {
        let requests = wanted.iter().map(|w| &w.request_id).collect();
        let is_pressing = is_new || self.queue.is_last_chance(&requests);
        let expected_minor = wanted.first().and_then(|one| one.expected_minor);
        let scanned_for = Criteria { selector: Arc::clone(&selector), expected_minor };
        let mut cursors = std::mem::take(self.cursors.of(scanned_for.clone()));
        cursors.note_pressing(is_pressing);
        let (store, pool_id) = (self.store.clone(), self.pool_id.clone());
        Attempt { store, pool_id, selector, wanted, cursors, scanned_for }
    }

    /// Hands out what a statement of the pass found.
    async fn conclude(&mut self, pass: &mut Pass, attempted: Attempted) -> Result<(), String> {
        let Attempted { selector, expected, cursors, scanned_for, took, found } = attempted;
        *self.cursors.of(scanned_for) = cursors;
        let found = match found {
            Ok(found) => found,
            Err(StoreError::Unavailable(why)) => return Err(why),
            Err(error) => {
                self.refuse(&selector, &Error::from(error));
                return Ok(());
            }
        };
        let leases = found.len();
        let given = self.hand_out(found).await;
        let without = without(&expected, &given);
        self.note_time(&selector, &expected, &without, took, leases, pass.used);
        if without.is_empty() {
            return Ok(());
        }
        let all_criteria = criteria_of(&selector, &without);
        if all_criteria.iter().any(|criteria| kind(criteria).is_some()) {
            pass.used += took;
        }
        if !self.end_expired().await && !self.promote().await {
            self.check(&selector).await;
            pass.exhausted.extend(all_criteria);
        }
        Ok(())
    }

    /// Hands out what a statement beside the pass found.
    pub(super) async fn conclude_side(
        &mut self,
        all_criteria: HashSet<Criteria>,
        attempted: Result<Attempted, JoinError>,
    ) {
        let Attempted { selector, expected, took, found, .. } = match attempted {
            Ok(attempted) => attempted,
            Err(error) => {
                tracing::error!(pool_id = %self.pool_id, %error, "a task that acquired ended");
                for criteria in all_criteria {
                    self.slow.note(criteria, NEARLY_TIMED_OUT, 0, false, Duration::ZERO);
                }
                return;
            }
        };
        let found = match found {
            Ok(found) => found,
            Err(StoreError::Unavailable(why)) if took < NEARLY_TIMED_OUT => {
                all_criteria.into_iter().for_each(|criteria| self.slow.left_the_pass(criteria));
                return self.no_database(&why);
            }
            // It read more than it may.
            Err(StoreError::Unavailable(_)) => HashMap::new(),
            Err(error) => return self.refuse(&selector, &Error::from(error)),
        };
        let leases = found.len();
        let given = self.hand_out(found).await;
        let without = without(&expected, &given);
        self.note_time(&selector, &expected, &without, took, leases, Duration::ZERO);
        if !without.is_empty() {
            // It found nothing for any others with the same criteria either.
            let same = self.queue.iter_mut().filter(|waiter| {
                waiter.selector == selector && without.contains(&waiter.wanted.expected_minor)
            });
            same.for_each(|waiter| waiter.tried = true);
            self.check(&selector).await;
        }
    }

    fn note_time(
        &mut self,
        selector: &Arc<Selector>,
        expected: &HashMap<RequestId, Option<i64>>,
        without: &HashSet<Option<i64>>,
        took: Duration,
        leases: usize,
        used: Duration,
    ) {
        let amounts: HashSet<_> = expected.values().copied().collect();
        let took = took / u32::try_from(amounts.len()).unwrap_or(u32::MAX).max(1);
        for criteria in criteria_of(selector, &amounts) {
            let is_enough = !without.contains(&criteria.expected_minor);
            self.slow.note(criteria, took, leases, is_enough, used);
        }
    }

    /// Tries the accounts that came free and may fit slow criteria, each by its name.
    async fn try_offered(
        &mut self,
        selector: &Arc<Selector>,
        wanted: &[Wanted],
    ) -> Result<(), String> {
        let mut wanted = wanted.to_vec();
        let amounts: HashSet<_> = wanted.iter().map(|one| one.expected_minor).collect();
        let mut taken = HashSet::new();
        for account_id in self.slow.take_offered(selector) {
            if wanted.is_empty() {
                break;
            }
            let only = Selector { account_id: Some(account_id), ..(**selector).clone() };
            let mut cursors = ScanCursors::default();
            let found = self.store.acquire(&self.pool_id, &only, &wanted, &mut cursors).await;
            match found {
                Ok(found) => {
                    let given = self.hand_out(found).await;
                    let is_given = |one: &&Wanted| given.contains(&one.request_id);
                    taken.extend(wanted.iter().filter(is_given).map(|one| one.expected_minor));
                    wanted.retain(|one| !is_given(&one));
                }
                Err(StoreError::Unavailable(why)) => return Err(why),
                Err(error) => {
                    tracing::warn!(pool_id = %self.pool_id, %error, "an account could not be offered");
                }
            }
        }
        for criteria in criteria_of(selector, &amounts) {
            self.slow.note_offered(&criteria, taken.contains(&criteria.expected_minor));
        }
        Ok(())
    }

    /// Starts to check slow criteria again whose time has come, those first whose time came first.
    pub(super) async fn check_slow(&mut self) {
        self.slow.forget_but(|| self.queue.iter().map(Waiter::criteria).collect());
        for of_kind in Kind::ALL {
            if !self.side.is_free(of_kind) {
                continue;
            }
            let now = Instant::now();
            let due = |waiter: &Waiter| {
                let criteria = waiter.criteria();
                let at = self.slow.due_at(&criteria, waiter.tried)?;
                let is_due = at <= now && kind(&criteria) == Some(of_kind);
                (is_due && !waiter.is_gone()).then_some((at, criteria))
            };
            let first = self.queue.iter().filter_map(due).min_by_key(|(at, _)| *at);
            let Some((_, first)) = first else { continue };
            let group = self.queue.next_group(|criteria| (*criteria == first).then_some(()));
            let Some(((), selector, wanted)) = group else { continue };
            let is_new = self.note_tried(&wanted);
            let attempt = self.attempt(selector, wanted, is_new);
            // None: it is not waited for.
            let _ = self.side.start(of_kind, attempt, Duration::ZERO).await;
            if is_new {
                self.meter.ends();
            }
        }
    }
}

/// What those expect who got nothing.
fn without(
    expected: &HashMap<RequestId, Option<i64>>,
    given: &HashSet<RequestId>,
) -> HashSet<Option<i64>> {
    let without = expected.iter().filter(|(request_id, _)| !given.contains(*request_id));
    without.map(|(_, expected_minor)| *expected_minor).collect()
}

fn criteria_of(selector: &Arc<Selector>, amounts: &HashSet<Option<i64>>) -> Vec<Criteria> {
    let criteria =
        |amount: &Option<i64>| Criteria { selector: Arc::clone(selector), expected_minor: *amount };
    amounts.iter().map(criteria).collect()
}
