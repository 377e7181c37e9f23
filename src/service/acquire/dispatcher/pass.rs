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
        beside::{Attempt, Attempted},
        slow::{FEW_ACCOUNTS, How, Kind, kind, patience_after},
        turns::{Waiter, Wish},
    },
    Dispatcher,
};
use crate::{
    domain::id::RequestId,
    service::Error,
    store::{
        StoreError,
        acquire::{Selector, Wanted},
        walks::Walks,
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
    exhausted: HashSet<Wish>,
    /// How long statements took that left somebody without, of criteria that may make them slow.
    spent: Duration,
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
            let next = self.turns.next_group(|wish| self.how(&pass, wish));
            let Some((how, selector, wanted)) = next else {
                // Whoever is left waits for an account, which is no work.
                self.turns.iter().for_each(|waiter| waiter.caller.step_aside());
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
        if is_fresh || !self.turns.iter().any(|waiter| kind(&waiter.wish()).is_some()) {
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

    /// How whoever asks so is served in this pass, if at all.
    fn how(&self, pass: &Pass, wish: &Wish) -> Option<How> {
        if pass.exhausted.contains(wish) || self.beside.is_for(wish) {
            return None;
        }
        self.slow.how(wish, |kind| self.beside.is_free(kind))
    }

    /// Tells the walks, and whoever waits with slow criteria, what came free.
    fn note_freed(&mut self) {
        let (accounts, is_changed) = self.freed.take();
        for freed in &accounts {
            self.walks.note_freed(freed);
            self.slow.offer(freed);
        }
        if is_changed {
            self.walks.forget();
            self.slow.changed();
            // There may be more accounts now.
            self.counted_at = self.counted_at.filter(|_| self.slow.is_large());
        }
    }

    /// Runs the statement for some who ask for the same, and hands out what it finds. One of criteria that are not
    /// known is waited for only for a moment.
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
                let patience = patience_after(pass.spent);
                let begun = Instant::now();
                let wishes = attempt.wishes();
                let attempted = self.beside.start(kind, attempt, patience).await;
                if attempted.is_none() {
                    pass.spent += begun.elapsed();
                    // From now on they are offered what comes free.
                    wishes.into_iter().for_each(|wish| self.slow.left_the_pass(wish));
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

    /// Notes that a statement is about to look for accounts for the requests. True when none has for some of them.
    fn note_tried(&mut self, wanted: &[Wanted]) -> bool {
        let requests = wanted.iter().map(|w| &w.request_id).collect();
        let came = self.turns.try_now(&requests);
        if let Some(came) = came {
            self.meter.begins(came);
        }
        came.is_some()
    }

    fn attempt(&mut self, selector: Arc<Selector>, wanted: Vec<Wanted>, is_new: bool) -> Attempt {
        let requests = wanted.iter().map(|w| &w.request_id).collect();
        let is_pressing = is_new || self.turns.is_last_chance(&requests);
        let expected_minor = wanted.first().and_then(|one| one.expected_minor);
        let walked_for = Wish { selector: Arc::clone(&selector), expected_minor };
        let mut walks = std::mem::take(self.walks.of(walked_for.clone()));
        walks.note_pressing(is_pressing);
        let (store, pool_id) = (self.store.clone(), self.pool_id.clone());
        Attempt { store, pool_id, selector, wanted, walks, walked_for }
    }

    /// Hands out what a statement of the pass found.
    async fn conclude(&mut self, pass: &mut Pass, attempted: Attempted) -> Result<(), String> {
        let Attempted { selector, hopes, walks, walked_for, took, found } = attempted;
        *self.walks.of(walked_for) = walks;
        let found = match found {
            Ok(found) => found,
            Err(StoreError::Unavailable(why)) => return Err(why),
            Err(error) => {
                self.refuse(&selector, &Error::Store(error));
                return Ok(());
            }
        };
        let leases = found.len();
        let given = self.hand_out(found).await;
        let without = without(&hopes, &given);
        self.note_time(&selector, &hopes, &without, took, leases, pass.spent);
        if without.is_empty() {
            return Ok(());
        }
        let wishes = wishes(&selector, &without);
        if wishes.iter().any(|wish| kind(wish).is_some()) {
            pass.spent += took;
        }
        if !self.end_expired().await && !self.unpark().await {
            self.check(&selector).await;
            pass.exhausted.extend(wishes);
        }
        Ok(())
    }

    /// Hands out what a statement beside the pass found.
    pub(super) async fn conclude_beside(
        &mut self,
        wishes: HashSet<Wish>,
        attempted: Result<Attempted, JoinError>,
    ) {
        let Attempted { selector, hopes, took, found, .. } = match attempted {
            Ok(attempted) => attempted,
            Err(error) => {
                tracing::error!(pool_id = %self.pool_id, %error, "a task that acquired ended");
                for wish in wishes {
                    self.slow.note(wish, NEARLY_TIMED_OUT, 0, false, Duration::ZERO);
                }
                return;
            }
        };
        let found = match found {
            Ok(found) => found,
            Err(StoreError::Unavailable(why)) if took < NEARLY_TIMED_OUT => {
                wishes.into_iter().for_each(|wish| self.slow.left_the_pass(wish));
                return self.no_database(&why);
            }
            // It read more than it may.
            Err(StoreError::Unavailable(_)) => HashMap::new(),
            Err(error) => return self.refuse(&selector, &Error::Store(error)),
        };
        let leases = found.len();
        let given = self.hand_out(found).await;
        let without = without(&hopes, &given);
        self.note_time(&selector, &hopes, &without, took, leases, Duration::ZERO);
        if !without.is_empty() {
            self.check(&selector).await;
        }
    }

    fn note_time(
        &mut self,
        selector: &Arc<Selector>,
        hopes: &HashMap<RequestId, Option<i64>>,
        without: &HashSet<Option<i64>>,
        took: Duration,
        leases: usize,
        spent: Duration,
    ) {
        let amounts: HashSet<_> = hopes.values().copied().collect();
        let took = took / u32::try_from(amounts.len()).unwrap_or(u32::MAX).max(1);
        for wish in wishes(selector, &amounts) {
            let is_enough = !without.contains(&wish.expected_minor);
            self.slow.note(wish, took, leases, is_enough, spent);
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
            let mut walks = Walks::default();
            let found = self.store.acquire(&self.pool_id, &only, &wanted, &mut walks).await;
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
        for wish in wishes(selector, &amounts) {
            self.slow.note_offered(&wish, taken.contains(&wish.expected_minor));
        }
        Ok(())
    }

    /// Starts to check slow criteria again whose time has come, those first whose time came first.
    pub(super) async fn check_slow(&mut self) {
        self.slow.forget_but(|| self.turns.iter().map(Waiter::wish).collect());
        for of_kind in Kind::ALL {
            if !self.beside.is_free(of_kind) {
                continue;
            }
            let now = Instant::now();
            let due = |waiter: &Waiter| {
                let wish = waiter.wish();
                let at = self.slow.due_at(&wish, waiter.tried)?;
                let is_due = at <= now && kind(&wish) == Some(of_kind);
                (is_due && !waiter.is_gone()).then_some((at, wish))
            };
            let first = self.turns.iter().filter_map(due).min_by_key(|(at, _)| *at);
            let Some((_, first)) = first else { continue };
            let group = self.turns.next_group(|wish| (*wish == first).then_some(()));
            let Some(((), selector, wanted)) = group else { continue };
            let is_new = self.note_tried(&wanted);
            let attempt = self.attempt(selector, wanted, is_new);
            // None: it is not waited for.
            let _ = self.beside.start(of_kind, attempt, Duration::ZERO).await;
            if is_new {
                self.meter.ends();
            }
        }
    }
}

/// What those expect who got nothing.
fn without(
    hopes: &HashMap<RequestId, Option<i64>>,
    given: &HashSet<RequestId>,
) -> HashSet<Option<i64>> {
    let without = hopes.iter().filter(|(request_id, _)| !given.contains(*request_id));
    without.map(|(_, expected_minor)| *expected_minor).collect()
}

fn wishes(selector: &Arc<Selector>, amounts: &HashSet<Option<i64>>) -> Vec<Wish> {
    let wish =
        |amount: &Option<i64>| Wish { selector: Arc::clone(selector), expected_minor: *amount };
    amounts.iter().map(wish).collect()
}
