//! The accounts that are under leases of this server, as they were told last.
//!
//! Only to decide from: what is written names the version that it was decided from. All of it is forgotten when
//! the connections were given up, since the database may have lost what it told.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::super::db::Db;
use crate::domain::{
    account::{Account, AccountStatus},
    id::{AccountId, PoolId},
};

/// How many accounts of a pool are remembered. An account has about 600 bytes.
const MAX_ACCOUNTS: usize = 8192;

#[derive(Debug, Default)]
struct OfPool {
    /// The connections over which they were told.
    generation: u64,
    accounts: HashMap<AccountId, Account>,
}

/// See [the module](self). Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(in crate::store) struct Memory(Arc<Mutex<HashMap<PoolId, OfPool>>>);

impl Memory {
    pub(in crate::store) fn get(
        &self,
        db: &Db,
        pool_id: &PoolId,
        account_id: &AccountId,
    ) -> Option<Account> {
        let pools = self.pools();
        let of_pool = pools.get(pool_id)?;
        (of_pool.generation == db.generation())
            .then(|| of_pool.accounts.get(account_id).cloned())
            .flatten()
    }

    /// Remembers an account that is under a lease, and forgets one that is not.
    pub(in crate::store) fn note(&self, db: &Db, account: &Account) {
        let mut pools = self.pools();
        let of_pool = pools.entry(account.pool_id.clone()).or_default();
        let generation = db.generation();
        if of_pool.generation != generation || of_pool.accounts.len() >= MAX_ACCOUNTS {
            of_pool.accounts.clear();
            of_pool.generation = generation;
        }
        if account.status == AccountStatus::Locking {
            of_pool.accounts.insert(account.account_id.clone(), account.clone());
        } else {
            of_pool.accounts.remove(&account.account_id);
        }
    }

    pub(in crate::store) fn forget(&self, pool_id: &PoolId, account_id: &AccountId) {
        if let Some(of_pool) = self.pools().get_mut(pool_id) {
            of_pool.accounts.remove(account_id);
        }
    }

    fn pools(&self) -> MutexGuard<'_, HashMap<PoolId, OfPool>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
