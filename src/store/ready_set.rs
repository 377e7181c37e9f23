//! Ready sets: the accounts of pools in memory, those that are free in the order of choice.
//!
//! A pool is loaded when somebody first wants an account of it, and is left when nobody does any more. Its changes
//! by this server are noted when they are written. Those by others are read when it is followed: each statement that
//! changes accounts leaves a row with their ids (`account_changes`). A server reads the rows of transactions that its
//! last snapshot did not see, so it misses none.
//!
//! What is here is only to choose and to decide from. What is written names the version that it was decided from, so
//! memory that is old does no harm: the change is lost, and the account is read.

mod accounts;
mod explain;
mod follow;
mod order;
mod set;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;
use uuid::Uuid;

use self::{explain::Kept, follow::Followed, set::ReadySet};
pub use self::{
    explain::{Asked, Explanation},
    follow::OldChanges,
    set::Chosen,
};
use super::{
    Store, StoreError, controls,
    db::Db,
    quarantine::{Quarantine, Statement},
    shrink,
    terms::{TermsCache, read_now},
};
use crate::{
    domain::{
        account::{Account, AccountEvent},
        choice::Criteria,
        id::{AccountId, PoolId},
        pool::PoolTerms,
        principal::RequestKey,
    },
    failpoints::{Guard, holds},
};

/// The ready sets of all pools. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct ReadySets {
    db: Db,
    /// The same for what reads much.
    rest: Db,
    terms: TermsCache,
    quarantine: Quarantine,
    server_id: Uuid,
    pools: Arc<Mutex<HashMap<PoolId, Arc<OfPool>>>>,
    /// Held while a page of accounts is read for an explanation.
    explaining: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug, Default)]
struct OfPool {
    set: Mutex<Memory>,
    /// How far others' changes were read. Held while they are.
    followed: tokio::sync::Mutex<Option<Followed>>,
    /// Rings when an account becomes free.
    freed: Notify,
    /// Held while the pool is read for an explanation.
    explaining: tokio::sync::Mutex<()>,
    /// The last explanation that was read.
    explained: Mutex<Option<Kept>>,
}

#[derive(Debug, Default)]
struct Memory {
    /// The connections over which it was told. When they were given up, the database may have lost what it told.
    generation: u64,
    set: ReadySet,
}

impl OfPool {
    fn set(&self, db: &Db) -> MutexGuard<'_, Memory> {
        let mut memory = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        if memory.generation != db.generation() {
            *memory = Memory { generation: db.generation(), set: ReadySet::default() };
        }
        memory
    }

    fn explained(&self) -> MutexGuard<'_, Option<Kept>> {
        self.explained.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ReadySets {
    pub(super) fn new(
        db: Db,
        rest: Db,
        terms: TermsCache,
        quarantine: Quarantine,
        server_id: Uuid,
    ) -> Self {
        Self {
            db,
            rest,
            terms,
            quarantine,
            server_id,
            pools: Arc::default(),
            explaining: Arc::default(),
        }
    }

    /// The terms of a pool were changed by this server.
    pub(super) fn changed(&self, pool_id: &PoolId) {
        self.terms.forget(pool_id);
        self.of(pool_id).freed.notify_one();
    }

    fn of(&self, pool_id: &PoolId) -> Arc<OfPool> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(pools.entry(pool_id.clone()).or_default())
    }

    /// Lets go of a pool whose accounts were given up. What comes of it later is noted in another one.
    fn let_go(&self, pool_id: &PoolId, pool: &Arc<OfPool>) {
        self.terms.let_go(pool_id);
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if pools.get(pool_id).is_some_and(|kept| Arc::ptr_eq(kept, pool)) {
            pools.remove(pool_id);
        }
        shrink(&mut pools);
    }

    /// Lets go of a pool of which nothing is kept but an explanation that is old. Nobody else has it then.
    fn let_go_unused(&self, pool_id: &PoolId, pool: &Arc<OfPool>) {
        pool.explained().take_if(|kept| kept.is_old());
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        // It is kept here, and by the one who lets go of it.
        if Arc::strong_count(pool) == 2 && pool.set(&self.db).set.len() == 0 {
            pools.remove(pool_id);
        }
    }

    /// What is known of an account.
    pub(super) fn get(&self, pool_id: &PoolId, account_id: &AccountId) -> Option<Account> {
        let account = self.of(pool_id).set(&self.db).set.get(account_id)?;
        Some(Account::clone(&account))
    }

    /// Notes an account as the database told it.
    pub(super) fn note(&self, account: &Account) {
        let pool = self.of(&account.pool_id);
        if pool.set(&self.db).set.note(account.clone()) {
            pool.freed.notify_one();
        }
    }

    /// Notes that what is known of an account is not so any more.
    pub(super) fn doubt(&self, pool_id: &PoolId, account_id: &AccountId) {
        self.of(pool_id).set(&self.db).set.doubt(account_id);
    }
}

/// The ready set of one pool. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Ready {
    sets: ReadySets,
    pool_id: PoolId,
    pool: Arc<OfPool>,
}

impl Store {
    /// The ready set of a pool.
    pub fn ready(&self, pool_id: &PoolId) -> Ready {
        let sets = self.ready.clone();
        Ready { pool: sets.of(pool_id), pool_id: pool_id.clone(), sets }
    }
}

impl Ready {
    fn set(&self) -> MutexGuard<'_, Memory> {
        self.pool.set(&self.sets.db)
    }

    /// The pool.
    pub fn pool_id(&self) -> &PoolId {
        &self.pool_id
    }

    /// Waits until an account may have become free since this was last asked.
    pub async fn freed(&self) {
        self.pool.freed.notified().await;
    }

    /// Whether the pool's accounts are all here.
    pub fn is_whole(&self) -> bool {
        self.set().set.is_whole
    }

    /// How many of the pool's accounts are here.
    pub fn accounts(&self) -> usize {
        self.set().set.len()
    }

    /// Gives up the pool's accounts, and all else that is kept of it: nobody wants any.
    pub async fn leave(&self) {
        let mut followed = self.pool.followed.lock().await;
        *followed = None;
        self.set().set = ReadySet::default();
        self.sets.let_go(&self.pool_id, &self.pool);
    }

    /// Notes accounts as the database told them.
    pub fn note(&self, accounts: impl IntoIterator<Item = Account>) {
        let mut memory = self.set();
        let mut is_any_free = false;
        for account in accounts {
            is_any_free |= memory.set.note(account);
        }
        if is_any_free {
            self.pool.freed.notify_one();
        }
    }

    /// The terms of the pool as they were read last.
    pub fn terms(&self) -> Option<Arc<PoolTerms>> {
        self.sets.terms.last(&self.sets.db, &self.pool_id)
    }

    /// The terms of the pool as they are; `None` where there is no such pool.
    pub async fn read_terms(&self) -> Result<Option<Arc<PoolTerms>>, StoreError> {
        Ok(read_now(&self.sets.rest, &self.pool_id).await?)
    }

    /// Chooses accounts for those who ask, in their order: for each the best that nobody before it got, at most
    /// `limit`. They are not chosen again until [`Ready::conclude`].
    pub fn choose<'a>(
        &self,
        asked: impl IntoIterator<Item = &'a Arc<Criteria>>,
        terms: &PoolTerms,
        limit: usize,
    ) -> Vec<Chosen> {
        let left_out = self.sets.quarantine.left_out(Statement::Acquire, &self.pool_id);
        let left_out: HashSet<_> = left_out.into_iter().collect();
        self.set().set.choose(asked, &controls::seen(terms), &left_out, limit)
    }

    /// Notes that accounts which were chosen are leased, or could not be: they may be chosen again when they are free.
    pub fn conclude(&self, account_ids: &[AccountId]) {
        self.set().set.conclude(account_ids);
    }

    /// Those of the requests that have a lease already, as far as is known.
    pub fn with_leases<'a>(
        &self,
        requests: impl Iterator<Item = &'a RequestKey>,
    ) -> Vec<RequestKey> {
        let memory = self.set();
        let is_leased = |request: &&RequestKey| {
            memory.set.has_lease(request) && holds(Guard::LostRepliesAreFound)
        };
        requests.filter(is_leased).cloned().collect()
    }

    /// Whether the pool has this account, as far as is known.
    pub fn has_account(&self, account_id: &AccountId) -> bool {
        self.set().set.has(account_id)
    }

    /// Notes that an account could not be leased. Where it is what it was, somebody holds its row.
    pub(super) fn note_lost(&self, account: &Account) {
        let mut memory = self.set();
        let now = memory.set.get(&account.account_id);
        if now.is_some_and(|now| now.version == account.version) {
            memory.set.note_held(&account.account_id);
        }
    }

    /// Ends leases whose time has passed, as far as is known, at most `limit`. `actor` is who does. A lease that
    /// cannot be ended is left out, and does not hold up the others. `None` where there were none.
    pub async fn expire(
        &self,
        store: &Store,
        limit: usize,
        actor: &str,
    ) -> Result<Option<Vec<Account>>, StoreError> {
        let left_out = self.sets.quarantine.left_out(Statement::Expire, &self.pool_id);
        let is_left_out = |id: &AccountId| left_out.iter().any(|other| other == id.as_str());
        let mut ended = self.set().set.ended(limit + left_out.len()).0;
        ended.retain(|account| !is_left_out(&account.account_id));
        if ended.is_empty() {
            return Ok(None);
        }
        let event = AccountEvent::Expire { actor: actor.to_owned() };
        let ended = store.apply_to_all(Statement::Expire, &self.pool_id, ended, &event).await?;
        Ok(Some(ended.rows))
    }

    /// For how long nothing changes but by what is noted: until an account's time comes or a lease ends.
    pub fn unchanged_for(&self) -> Option<Duration> {
        let mut memory = self.set();
        let usable = memory.set.advance();
        let (_, ended) = memory.set.ended(0);
        let now = memory.set.now()?;
        let next = usable.into_iter().chain(ended).min()?;
        Some(Duration::try_from(next - now).unwrap_or_default())
    }

    /// Reads accounts by their ids, and those that are under leases of these requests, and notes them. Answers with
    /// the latter.
    pub async fn read(
        &self,
        ids: &[String],
        requests: &[RequestKey],
    ) -> Result<Vec<Account>, StoreError> {
        let mut ids = ids.to_vec();
        {
            // What is known of their leases may be old.
            let memory = self.set();
            ids.extend(requests.iter().filter_map(|request| memory.set.leased_to(request)));
        }
        let read = self.sets.read_accounts(&self.pool_id, &ids, requests).await?;
        let found: HashSet<_> = read.iter().map(|(id, _)| id.as_str()).collect();
        {
            let mut memory = self.set();
            let gone = ids.iter().filter(|id| !found.contains(id.as_str()));
            for id in gone.filter_map(|id| AccountId::stored(id).ok()) {
                memory.set.forget(&id);
            }
        }
        let is_asked = |account: &Account| {
            account.lease.as_ref().is_some_and(|lease| requests.contains(&lease.request))
        };
        let accounts = read.into_iter().filter_map(|(_, account)| account.ok());
        Ok(accounts.filter(is_asked).collect())
    }
}
