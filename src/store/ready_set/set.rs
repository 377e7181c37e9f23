//! The accounts of one pool in memory, and what is looked up among them. Of the database it knows nothing.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use time::OffsetDateTime;
use tokio::time::Instant;

use super::{
    accounts::{Accounts, Entry},
    order::Order,
};
use crate::{
    domain::{
        account::{Account, AccountStatus, LoginStatus},
        choice::Criteria,
        id::AccountId,
        pool::PoolTerms,
        principal::RequestKey,
    },
    failpoints::{Guard, holds},
};

/// How many accounts are kept of a pool that is not loaded: those that are under leases of this server. An account
/// has about 600 bytes.
const MAX_LEASED: usize = 8192;
/// How many changes are kept for criteria that found nothing before.
const MAX_LOG: usize = 4096;
/// The most criteria of which it is kept that they found nothing.
const MAX_SEARCHED: usize = 4096;
/// How long an account is left out that somebody holds.
const HELD: Duration = Duration::from_millis(250);

/// See [the module](self).
#[derive(Debug, Default)]
pub(super) struct ReadySet {
    /// All accounts of the pool are here. Otherwise those that are under leases of this server, to decide from.
    pub(super) is_whole: bool,
    accounts: Accounts,
    /// All of them are being read.
    is_loading: bool,
    /// Accounts that are not what they are taken for, as a change that was lost has shown. They are to be read.
    doubted: HashSet<AccountId>,
    /// Rows that could not be read.
    unreadable: HashSet<String>,
    /// Counts the times that the pool was loaded.
    load: u32,
    free: Order,
    /// Free accounts that are not to be used before a time.
    deferred: BTreeSet<(OffsetDateTime, AccountId)>,
    /// Leases without an open redemption, by their ends.
    leases: BTreeSet<(OffsetDateTime, AccountId)>,
    requests: HashMap<RequestKey, AccountId>,
    /// Accounts that were chosen, and are being leased.
    claimed: HashSet<AccountId>,
    /// Accounts that could not be leased although nothing has changed: somebody holds their rows.
    held: HashMap<AccountId, Instant>,
    /// What the database's clock was, and when it told.
    clock: Option<(OffsetDateTime, Instant)>,
    /// Accounts that became free, the last ones, and how many there were before these.
    log: VecDeque<AccountId>,
    forgotten: u64,
    /// Criteria that found nothing, and how many accounts had become free by then.
    searched: HashMap<Criteria, u64>,
    /// For which terms.
    searched_by: i64,
}

/// Where an account stands.
enum Standing {
    Free,
    Deferred(OffsetDateTime),
    Leased(OffsetDateTime),
    Nowhere,
}

/// An account that is to be leased.
#[derive(Debug)]
pub struct Chosen {
    /// For which of those who asked, by their number.
    pub number: usize,
    /// As it is as far as is known.
    pub account: Account,
}

impl ReadySet {
    /// What the database's clock is, as far as is known.
    pub(super) fn now(&self) -> Option<OffsetDateTime> {
        self.clock.map(|(told, at)| told + at.elapsed())
    }

    /// Sets the clock. It is never put back by what was told before.
    pub(super) fn set_clock(&mut self, now: OffsetDateTime) {
        if self.now().is_none_or(|known| known < now) {
            self.clock = Some((now, Instant::now()));
        }
    }

    /// Corrects the clock where it is ahead of what was told within this time.
    pub(super) fn correct_clock(&mut self, now: OffsetDateTime, within: Duration) {
        if self.now().is_some_and(|known| known > now + within) {
            self.clock = Some((now, Instant::now()));
        }
    }

    /// What is known of an account, unless it is doubted.
    pub(super) fn get(&self, account_id: &AccountId) -> Option<Arc<Account>> {
        let entry = self.accounts.get(account_id).filter(|_| !self.doubted.contains(account_id))?;
        Some(Arc::clone(&entry.account))
    }

    pub(super) fn len(&self) -> usize {
        self.accounts.len()
    }

    pub(super) fn has(&self, account_id: &AccountId) -> bool {
        self.accounts.has(account_id)
    }

    /// Notes that an account is not what it is taken for.
    pub(super) fn doubt(&mut self, account_id: &AccountId) {
        if !self.is_whole && !self.is_loading {
            self.forget(account_id);
        } else if self.accounts.has(account_id) {
            self.doubted.insert(account_id.clone());
        }
    }

    /// The accounts that are to be read.
    pub(super) fn doubted(&self) -> Vec<String> {
        self.doubted.iter().map(AccountId::to_string).collect()
    }

    /// The account that is under a lease of this request.
    pub(super) fn leased_to(&self, request: &RequestKey) -> Option<String> {
        self.requests.get(request).map(AccountId::to_string)
    }

    /// Whether an account is under a lease of this request.
    pub(super) fn has_lease(&self, request: &RequestKey) -> bool {
        self.requests.contains_key(request)
    }

    /// A part of the accounts, and where the next one begins.
    pub(super) fn part(&self, from: usize, most: usize) -> (Vec<Arc<Account>>, Option<usize>) {
        self.accounts.part(from, most)
    }

    pub(super) fn unreadable(&self) -> usize {
        self.unreadable.len()
    }

    /// Notes an account as the database told it, unless a later version is known. True where it is free now.
    pub(super) fn note(&mut self, account: Account) -> bool {
        self.set_clock(account.as_of);
        let id = account.account_id.clone();
        let load = self.load;
        let is_doubted = self.doubted.contains(&id);
        if let Some(entry) = self.accounts.get_mut(&id) {
            entry.load = load;
            let (known, told) = (entry.account.version, account.version);
            if !is_doubted && (known.number > told.number || known == told) {
                return false;
            }
        }
        self.forget(&id);
        if !self.is_whole && !self.is_loading {
            if account.status != AccountStatus::Locking {
                return false;
            }
            if self.accounts.len() >= MAX_LEASED {
                *self = Self { clock: self.clock, ..Self::default() };
            }
        }
        let account = Arc::new(account);
        self.stand(&account);
        let is_free = matches!(self.standing(&account), Standing::Free);
        self.accounts.insert(id, Entry { account, load });
        is_free
    }

    /// Notes that an account's row cannot be read.
    pub(super) fn note_unreadable(&mut self, account_id: &str) {
        if let Ok(id) = AccountId::stored(account_id) {
            self.forget(&id);
        }
        self.unreadable.insert(account_id.to_owned());
    }

    /// Forgets what is known of an account.
    pub(super) fn forget(&mut self, account_id: &AccountId) {
        self.held.remove(account_id);
        self.doubted.remove(account_id);
        self.unreadable.remove(account_id.as_str());
        let Some(Entry { account, .. }) = self.accounts.remove(account_id) else { return };
        if let Some(lease) = &account.lease {
            self.leases.remove(&(lease.expires_at, account_id.clone()));
            self.requests.remove(&lease.request);
        }
        if let Some(time) = account.available_at() {
            self.deferred.remove(&(time, account_id.clone()));
        }
        self.free.remove(&account);
    }

    /// Notes that an account could not be leased, although it is what it was: it is left out for a while.
    pub(super) fn note_held(&mut self, account_id: &AccountId) {
        self.held.insert(account_id.clone(), Instant::now() + HELD);
    }

    /// Notes that accounts which were chosen are leased, or could not be.
    pub(super) fn conclude(&mut self, account_ids: &[AccountId]) {
        for id in account_ids {
            self.claimed.remove(id);
            // Others may have been told meanwhile that there is none.
            let is_free = |account: Arc<Account>| matches!(self.standing(&account), Standing::Free);
            if self.get(id).is_some_and(is_free) {
                self.log(id.clone());
            }
        }
    }

    /// Begins to load the pool.
    pub(super) fn begin_load(&mut self) {
        self.load += 1;
        self.is_loading = true;
        self.unreadable.clear();
    }

    /// Forgets the accounts that a load did not find.
    pub(super) fn end_load(&mut self) {
        self.is_loading = false;
        self.is_whole = true;
        let gone = self.accounts.iter().filter(|entry| entry.load != self.load);
        for id in gone.map(|entry| entry.account.account_id.clone()).collect::<Vec<_>>() {
            self.forget(&id);
        }
    }

    fn standing(&self, account: &Account) -> Standing {
        let is_open = matches!(account.status, AccountStatus::Waiting | AccountStatus::Processing);
        let may_log_in = account.login_status == LoginStatus::Active
            || !holds(Guard::InactiveAccountsAreNotLeased);
        let is_usable = may_log_in && !account.paused && !account.draining;
        let time = account.available_at().filter(|_| holds(Guard::RestingAccountsAreNotUsed));
        match (&account.lease, time) {
            (Some(lease), _) if account.open_redemption_id.is_none() => {
                Standing::Leased(lease.expires_at)
            }
            (None, time) if is_open && is_usable => match time {
                Some(time) if self.now().is_none_or(|now| time > now) => Standing::Deferred(time),
                _ => Standing::Free,
            },
            _ => Standing::Nowhere,
        }
    }

    fn stand(&mut self, account: &Arc<Account>) {
        let id = account.account_id.clone();
        if let Some(lease) = &account.lease {
            self.requests.insert(lease.request.clone(), id.clone());
        }
        match self.standing(account) {
            Standing::Free => {
                self.free.insert(account);
                self.log(id);
            }
            Standing::Deferred(time) => drop(self.deferred.insert((time, id))),
            Standing::Leased(time) => drop(self.leases.insert((time, id))),
            Standing::Nowhere => {}
        }
    }

    fn log(&mut self, account_id: AccountId) {
        if self.log.len() >= MAX_LOG {
            self.log.pop_front();
            self.forgotten += 1;
        }
        self.log.push_back(account_id);
    }

    /// Lets accounts be chosen whose time has come. Answers when the next one's does.
    pub(super) fn advance(&mut self) -> Option<OffsetDateTime> {
        let now = self.now()?;
        while let Some((time, id)) = self.deferred.first().cloned() {
            if time > now {
                break;
            }
            self.deferred.pop_first();
            if let Some(account) = self.get(&id) {
                self.free.insert(&account);
                self.log(id);
            }
        }
        let at = Instant::now();
        self.held.retain(|_, until| *until > at);
        self.deferred.first().map(|(time, _)| *time)
    }

    /// Leases whose time has passed, as far as is known, at most `limit`; and when the next one's does.
    pub(super) fn ended(&self, limit: usize) -> (Vec<Account>, Option<OffsetDateTime>) {
        let Some(now) = self.now() else { return (Vec::new(), None) };
        let ended = self.leases.iter().take_while(|(time, _)| *time <= now);
        let ended = ended.filter_map(|(_, id)| self.get(id)).take(limit);
        let next = self.leases.iter().find(|(time, _)| *time > now);
        (ended.map(|account| as_of(&account, now)).collect(), next.map(|(time, _)| *time))
    }

    /// Chooses accounts for those who ask, in their order: for each the best that nobody before it got, at most
    /// `limit` in all. Those of `left_out` cannot be written.
    pub(super) fn choose<'a>(
        &mut self,
        asked: impl IntoIterator<Item = &'a Arc<Criteria>>,
        pool: &PoolTerms,
        left_out: &HashSet<String>,
        limit: usize,
    ) -> Vec<Chosen> {
        self.advance();
        let Some(now) = self.now() else { return Vec::new() };
        let mut searched = std::mem::take(&mut self.searched);
        if std::mem::replace(&mut self.searched_by, pool.revision) != pool.revision
            || searched.len() >= MAX_SEARCHED
        {
            searched.clear();
        }
        let this = &*self;
        let mut taken = HashSet::new();
        // By their addresses: those who wait share theirs, and to hash one takes longer than to choose.
        let mut scans: HashMap<*const Criteria, Option<Scan<'_>>> = HashMap::new();
        // Whose scans have met accounts that could not be had just now.
        let mut left = HashSet::new();
        let mut chosen = Vec::new();
        for (number, criteria) in asked.into_iter().enumerate() {
            if chosen.len() >= limit {
                break;
            }
            let scan = scans.entry(Arc::as_ptr(criteria)).or_insert_with(|| {
                let may_fit = this.may_fit(criteria, searched.get(criteria), pool);
                may_fit.then(|| this.scan(criteria, pool))
            });
            let mut is_any_left = false;
            let found = scan.as_mut().and_then(|scan| {
                scan.find(|account| {
                    let id = &account.account_id;
                    let is_open = !this.held.contains_key(id)
                        && !this.claimed.contains(id)
                        && !this.doubted.contains(id)
                        && !left_out.contains(id.as_str())
                        && taken.insert(id);
                    is_any_left |= !is_open;
                    is_open
                })
            });
            if is_any_left {
                left.insert(Arc::as_ptr(criteria));
            }
            match found {
                Some(account) => chosen.push(Chosen { number, account: as_of(account, now) }),
                None => {
                    *scan = None;
                    // One that was left now may be had the next time.
                    let is_new = searched.get(&**criteria) != Some(&this.logged());
                    if is_new && !left.contains(&Arc::as_ptr(criteria)) {
                        searched.insert(Criteria::clone(criteria), this.logged());
                    }
                }
            }
        }
        drop(scans);
        self.searched = searched;
        self.claimed.extend(chosen.iter().map(|one: &Chosen| one.account.account_id.clone()));
        chosen
    }

    fn logged(&self) -> u64 {
        self.forgotten + self.log.len() as u64
    }

    /// Whether there may be an account for criteria that found nothing when so many had become free.
    fn may_fit(&self, criteria: &Criteria, searched: Option<&u64>, pool: &PoolTerms) -> bool {
        let seen = searched.and_then(|searched| searched.checked_sub(self.forgotten));
        let Some(seen) = seen.and_then(|seen| usize::try_from(seen).ok()) else { return true };
        let mut news = self.log.iter().skip(seen).filter_map(|id| self.accounts.get(id));
        news.any(|entry| self.is_free_for(&entry.account, criteria, pool))
    }

    /// Whether an account is free, and fits criteria.
    fn is_free_for(&self, account: &Account, criteria: &Criteria, pool: &PoolTerms) -> bool {
        matches!(self.standing(account), Standing::Free)
            && criteria.selector.allows(account)
            && criteria.misfit(account, pool).is_none()
    }

    /// The accounts that fit criteria, the best first.
    fn scan<'a>(&'a self, criteria: &'a Criteria, pool: &'a PoolTerms) -> Scan<'a> {
        if let Some(id) = &criteria.selector.account_id {
            let fits = move |account: &&Arc<Account>| self.is_free_for(account, criteria, pool);
            return Box::new(
                self.accounts.get(id).map(|entry| &entry.account).into_iter().filter(fits),
            );
        }
        let accounts = self.free.fitting(criteria, pool).filter_map(|id| self.accounts.get(id));
        let allowed = |account: &&Arc<Account>| criteria.selector.allows(account);
        Box::new(accounts.map(|entry| &entry.account).filter(allowed))
    }
}

type Scan<'a> = Box<dyn Iterator<Item = &'a Arc<Account>> + 'a>;

/// An account as it is by now, if nothing has happened to it.
fn as_of(account: &Account, now: OffsetDateTime) -> Account {
    Account { as_of: now, ..account.clone() }
}

#[cfg(test)]
mod tests;
