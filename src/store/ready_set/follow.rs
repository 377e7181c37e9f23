//! Loading a pool's accounts, and following what other servers and people change.

use std::time::Duration;

use time::OffsetDateTime;
use tokio::{task::coop::consume_budget, time::Instant};
use uuid::Uuid;

use super::{Ready, ReadySet, ReadySets};
use crate::{
    domain::{account::Account, id::PoolId, principal::RequestKey},
    store::{
        Store, StoreError,
        account::{AccountRow, ListedRow, skip_unreadable},
        db::Db,
        quarantine::Statement,
    },
};

/// How many accounts one statement loads, and how many bytes these have at the most.
const LOAD_ROWS: i64 = 20_000;
const LOAD_BYTES: i64 = 16 * 1024 * 1024;
/// How many accounts are read by their ids. Where others changed more, the whole pool is read.
const READ_ROWS: usize = 20_000;
/// How long what a server does not follow is kept for it. A server that was away for longer loads the pool anew.
pub(super) const FOLLOW_WITHIN: Duration = Duration::from_secs(45);
/// How old a snapshot is by which old rows are removed.
const KEPT_FOR: Duration = Duration::from_secs(60);
/// How many rows one statement removes.
const REMOVE_ROWS: u64 = 5000;

/// How far others' changes were read.
#[derive(Clone, Debug)]
pub(super) struct Followed {
    generation: u64,
    snapshot: String,
    /// The database's time of the snapshot.
    told: OffsetDateTime,
    /// When the database was started.
    started: OffsetDateTime,
}

/// What there is to know of a pool since a snapshot.
pub(super) struct FollowRow {
    pub(super) revision: i64,
    db_now: OffsetDateTime,
    started: OffsetDateTime,
    snapshot: String,
    are_many: bool,
    account_ids: Vec<String>,
}

impl Followed {
    pub(super) fn of(row: FollowRow, generation: u64) -> Self {
        let (snapshot, told, started) = (row.snapshot, row.db_now, row.started);
        Self { generation, snapshot, told, started }
    }

    /// Whether a row tells all that changed since: of the same database, and not long after.
    pub(super) fn is_of(&self, row: &FollowRow) -> bool {
        self.started == row.started && row.db_now - self.told < FOLLOW_WITHIN
    }
}

impl FollowRow {
    /// Whether no account is named that changed.
    pub(super) fn names_none(&self) -> bool {
        !self.are_many && self.account_ids.is_empty()
    }
}

/// A snapshot by which rows are removed once it is old.
#[derive(Debug, Default)]
pub struct OldChanges {
    /// The oldest transaction in progress, and when that was.
    last: Option<(i64, Instant)>,
}

impl ReadySets {
    /// Reads accounts by their ids or by the requests that have leased them, and notes them.
    pub(in crate::store) async fn read_accounts(
        &self,
        pool_id: &PoolId,
        ids: &[String],
        requests: &[RequestKey],
    ) -> Result<Vec<(String, Result<Account, StoreError>)>, sqlx::Error> {
        let rows = sqlx::query_file_as!(
            AccountRow,
            "src/store/sql/account/read_accounts.sql",
            pool_id.as_str(),
            ids,
            &requests.iter().map(|request| request.request_id.to_string()).collect::<Vec<_>>(),
            &requests.iter().map(|request| request.principal.to_string()).collect::<Vec<_>>(),
        );
        let rows = rows.fetch_all(&self.db).await?;
        let read: Vec<_> = rows
            .into_iter()
            .map(|row| {
                let account = row.account(pool_id);
                (row.account_id, account)
            })
            .collect();
        for (account_id, account) in &read {
            match account {
                Ok(account) => self.note(account),
                Err(error) => self.note_unreadable(pool_id, account_id, error),
            }
        }
        Ok(read)
    }

    fn note_unreadable(&self, pool_id: &PoolId, account_id: &str, error: &StoreError) {
        self.of(pool_id).set(&self.db).set.note_unreadable(account_id);
        skip_unreadable("acquire", pool_id, account_id, error);
        self.quarantine.leave_out(Statement::Acquire, pool_id, account_id, error, false);
    }
}

impl Ready {
    /// Reads what others changed, and the whole pool where it is not here yet. False where there is no such pool.
    pub async fn follow(&self) -> Result<bool, StoreError> {
        let mut followed = self.pool.followed.lock().await;
        self.follow_on(&mut followed).await
    }

    /// The same where the pool's accounts are all here; `None` where they are not.
    pub async fn follow_whole(&self) -> Result<Option<bool>, StoreError> {
        let mut followed = self.pool.followed.lock().await;
        match self.is_whole() {
            true => Ok(Some(self.follow_on(&mut followed).await?)),
            false => Ok(None),
        }
    }

    /// Reads what there is to know of a pool since a snapshot, but what the server `but` changed. `None` where there is no
    /// such pool.
    pub(super) async fn follow_row(
        &self,
        db: &Db,
        last: Option<&Followed>,
        but: Uuid,
    ) -> Result<Option<FollowRow>, StoreError> {
        let row = sqlx::query_file_as!(
            FollowRow,
            "src/store/sql/account/follow.sql",
            self.pool_id.as_str(),
            last.map(|last| &*last.snapshot),
            but,
        );
        Ok(row.fetch_optional(db).await?)
    }

    async fn follow_on(&self, followed: &mut Option<Followed>) -> Result<bool, StoreError> {
        let generation = self.sets.db.generation();
        let begun = Instant::now();
        let last = followed.take().filter(|last| last.generation == generation);
        let row = self.follow_row(&self.sets.db, last.as_ref(), self.sets.server_id).await?;
        let Some(row) = row else {
            self.sets.terms.forget(&self.pool_id);
            return Ok(false);
        };
        // Another one, or the same one after a crash, may have lost what the last one told.
        if last.as_ref().is_some_and(|last| last.started != row.started) {
            self.set().set = ReadySet::default();
        }
        let has_all = last.is_some_and(|last| last.is_of(&row));
        let mut ids = row.account_ids.clone();
        ids.extend(self.set().set.doubted());
        if !has_all || row.are_many || !self.is_whole() || ids.len() > READ_ROWS {
            self.load().await?;
        } else if !ids.is_empty() {
            self.read(&ids, &[]).await?;
        }
        if self.terms().is_none_or(|terms| terms.revision != row.revision) {
            self.sets.terms.read(&self.sets.db, &self.pool_id).await?;
        }
        {
            let mut memory = self.set();
            memory.set.set_clock(row.db_now);
            memory.set.correct_clock(row.db_now, begun.elapsed());
        }
        *followed = Some(Followed::of(row, generation));
        Ok(true)
    }

    /// Reads a page of the pool's accounts, those after one of them; true where none is behind it.
    pub(super) async fn page(
        &self,
        after: &str,
        limit: i64,
        bytes: i64,
    ) -> Result<(Vec<ListedRow>, bool), StoreError> {
        let none: Option<&str> = None;
        let rows = sqlx::query_file_as!(
            ListedRow,
            "src/store/sql/account/list_accounts.sql",
            self.pool_id.as_str(),
            after,
            limit,
            none,
            none,
            none,
            bytes,
            None::<&str>,
            None::<time::OffsetDateTime>,
            None::<time::OffsetDateTime>,
        )
        .fetch_all(&self.sets.rest)
        .await?;
        let is_short = i64::try_from(rows.len()).is_ok_and(|rows| rows < limit);
        let is_last = is_short && rows.last().is_none_or(|last| !last.more);
        Ok((rows, is_last))
    }

    /// Reads all accounts of the pool.
    async fn load(&self) -> Result<(), StoreError> {
        let begun = Instant::now();
        let generation = {
            let mut memory = self.set();
            memory.set.begin_load();
            memory.generation
        };
        let mut after = String::new();
        let mut count = 0;
        loop {
            let (rows, is_last) = self.page(&after, LOAD_ROWS, LOAD_BYTES).await?;
            let Some(last) = rows.last() else { break };
            after.clone_from(&last.account_id);
            count += rows.len();
            for row in rows {
                match row.account(&self.pool_id) {
                    Ok(account) => drop(self.set().set.note(account)),
                    Err(error) => {
                        self.sets.note_unreadable(&self.pool_id, &row.account_id, &error);
                    }
                }
                // Others have work on the same thread.
                consume_budget().await;
            }
            if is_last {
                break;
            }
        }
        {
            let mut memory = self.set();
            if memory.generation != generation {
                let why = "connections were given up while accounts were read".to_owned();
                return Err(StoreError::Unavailable(why));
            }
            memory.set.end_load();
        }
        tracing::debug!(pool_id = %self.pool_id, accounts = count, took = ?begun.elapsed(), "pool loaded");
        metrics::histogram!("holdfast_ready_set_load_seconds").record(begun.elapsed());
        Ok(())
    }
}

impl Store {
    /// Removes what `account_changes` has of pools that every server has read by now, or does without. To be called
    /// now and then.
    pub async fn forget_changes(
        &self,
        pools: &[PoolId],
        old: &mut OldChanges,
    ) -> Result<(), StoreError> {
        if let Some((oldest, at)) = old.last {
            if at.elapsed() < KEPT_FOR {
                return Ok(());
            }
            for pool_id in pools {
                while self.forget_some_changes(pool_id, oldest).await? == REMOVE_ROWS {}
            }
        }
        let oldest = sqlx::query_file_scalar!("src/store/sql/account/oldest_transaction.sql");
        old.last = Some((oldest.fetch_one(&self.db).await?, Instant::now()));
        Ok(())
    }

    async fn forget_some_changes(&self, pool_id: &PoolId, oldest: i64) -> Result<u64, StoreError> {
        let remove = sqlx::query_file!(
            "src/store/sql/account/forget_changes.sql",
            pool_id.as_str(),
            oldest,
            i64::try_from(REMOVE_ROWS).unwrap_or(i64::MAX),
        );
        Ok(remove.execute(&self.db).await?.rows_affected())
    }
}
