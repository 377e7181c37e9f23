//! Leases: renewing, releasing, and ending those whose time has passed. Acquiring is in
//! [`super::acquire`].

use std::{collections::HashMap, time::Duration};

use super::{
    Store, StoreError,
    account::{Account, AccountRow, account_row, skip_unreadable},
    db::Db,
    interval,
    lane::{Batch, at_points},
    quarantine::{Done, Rows, Statement},
};
use crate::{
    domain::{
        account::AccountStatus,
        id::{AccountId, FencingToken, PoolId},
        lease::{LeaseLoss, LeaseRef},
    },
    failpoints::Step,
};

/// What became of a call under a lease.
#[derive(Clone, Debug)]
pub enum LeaseAnswer {
    /// It was done.
    Done(Account),
    /// The lease is not the caller's any more. With the account as it is.
    Lost(LeaseLoss, Account),
    /// There is no such account.
    NoAccount,
    /// A row of the answer could not be read.
    Unreadable(StoreError),
}

account_row!(LeaseRow {
    asked_token: i64,
    ended_by: Option<String>,
    lease_expired: Option<bool>,
    lease_end: Option<String>
});

impl LeaseRow {
    /// Why a call under `token` did nothing; `None` when nothing stands in its way any more.
    fn loss(&self, token: FencingToken) -> Option<LeaseLoss> {
        if self.fencing_token > token.0
            && self.ended_by.as_deref().is_some_and(|by| by != "expired")
        {
            // Taken again since, but only after its holder, or its redemption, had ended it.
            return Some(LeaseLoss::Released);
        }
        lease_loss(
            token,
            &LeaseNow {
                status: &self.status,
                token: self.fencing_token,
                end: self.lease_end.as_deref(),
                expired: self.lease_expired.unwrap_or(false),
                release_requested: self.release_requested,
            },
        )
    }
}

/// What of an account's row tells why a lease is lost.
pub(super) struct LeaseNow<'a> {
    pub(super) status: &'a str,
    pub(super) token: i64,
    pub(super) end: Option<&'a str>,
    pub(super) expired: bool,
    pub(super) release_requested: bool,
}

/// Why the lease of `token` is not its holder's any more; `None` when it is.
pub(super) fn lease_loss(token: FencingToken, now: &LeaseNow<'_>) -> Option<LeaseLoss> {
    // A token above the account's was never issued here: whoever holds it lost it with the data.
    if now.token != token.0 {
        return Some(LeaseLoss::TakenOver);
    }
    if now.status != AccountStatus::Locking.as_str() {
        let expired = now.end == Some("expired");
        return Some(if expired { LeaseLoss::Expired } else { LeaseLoss::Released });
    }
    if now.release_requested {
        Some(LeaseLoss::Released)
    } else {
        now.expired.then_some(LeaseLoss::Expired)
    }
}

impl Store {
    /// Makes a lease end `ttl` from now.
    pub async fn renew(&self, lease: &LeaseRef, ttl: Duration) -> Result<LeaseAnswer, StoreError> {
        self.renew.call(&lease.pool_id, (lease.clone(), ttl)).await
    }

    /// Ends a lease, or notes the wish while a redemption is open.
    pub async fn release(&self, lease: &LeaseRef) -> Result<LeaseAnswer, StoreError> {
        self.release.call(&lease.pool_id, lease.clone()).await
    }

    /// Ends the leases of a pool whose time passed `within` so long, or at any time, at most `limit`. `actor` is
    /// who looks. A lease that cannot be ended is left out, and does not hold up the others.
    pub async fn expire(
        &self,
        pool_id: &PoolId,
        within: Option<Duration>,
        limit: i64,
        actor: &str,
    ) -> Result<Done<Account>, StoreError> {
        let expire = |rows: Rows| async move {
            let expire = sqlx::query_file_as!(
                AccountRow,
                "src/store/sql/expire.sql",
                pool_id.as_str(),
                limit,
                actor,
                within.map(interval) as _,
                &rows.ids,
                rows.only,
            );
            at_points(Step::Expire, expire.fetch_all(&self.db)).await
        };
        let list = |limit: i64| {
            sqlx::query_file_scalar!("src/store/sql/list_due_leases.sql", pool_id.as_str(), limit)
                .fetch_all(&self.db)
        };
        let ended = self.quarantine.run(Statement::Expire, pool_id, limit, expire, list).await?;
        let read = |row: &AccountRow| {
            let account = row.account(pool_id);
            account
                .inspect_err(|error| skip_unreadable("expire", pool_id, &row.account_id, error))
                .ok()
        };
        let rows = ended.rows.iter().filter_map(read).collect();
        Ok(Done { rows, may_be_more: ended.may_be_more })
    }
}

/// The lane of renewals. May be repeated: a lease that was renewed is renewed once more.
#[derive(Debug)]
pub(super) struct Renew {
    pub(super) db: Db,
}

impl Batch for Renew {
    type Input = (LeaseRef, Duration);
    type Output = LeaseAnswer;
    const STEP: Step = Step::Renew;
    const DROPPED_WITH_CALLER: bool = true;

    async fn run(
        &self,
        pool_id: &PoolId,
        inputs: &[Self::Input],
    ) -> Result<Vec<LeaseAnswer>, sqlx::Error> {
        let ordered = by_account(inputs, |(lease, _)| lease);
        let ids: Vec<_> = ordered.iter().map(|(lease, _)| lease.account_id.to_string()).collect();
        let tokens: Vec<_> = ordered.iter().map(|(lease, _)| lease.token.0).collect();
        let ttls: Vec<_> = ordered.iter().map(|(_, ttl)| interval(*ttl)).collect();
        let rows = sqlx::query_file_as!(
            AccountRow,
            "src/store/sql/renew.sql",
            pool_id.as_str(),
            &ids,
            &tokens,
            &ttls,
        )
        .fetch_all(&self.db)
        .await?;
        let leases: Vec<_> = inputs.iter().map(|(lease, _)| lease).collect();
        answer(&self.db, pool_id, &leases, &rows).await
    }
}

/// The lane of releases. May be repeated: a lease that was released is found released.
#[derive(Debug)]
pub(super) struct Release {
    pub(super) db: Db,
}

impl Batch for Release {
    type Input = LeaseRef;
    type Output = LeaseAnswer;
    const STEP: Step = Step::Release;
    const DROPPED_WITH_CALLER: bool = false;

    async fn run(
        &self,
        pool_id: &PoolId,
        inputs: &[LeaseRef],
    ) -> Result<Vec<LeaseAnswer>, sqlx::Error> {
        let ordered = by_account(inputs, |lease| lease);
        let ids: Vec<_> = ordered.iter().map(|lease| lease.account_id.to_string()).collect();
        let tokens: Vec<_> = ordered.iter().map(|lease| lease.token.0).collect();
        let rows = sqlx::query_file_as!(
            AccountRow,
            "src/store/sql/release.sql",
            pool_id.as_str(),
            &ids,
            &tokens,
        )
        .fetch_all(&self.db)
        .await?;
        let leases: Vec<_> = inputs.iter().collect();
        answer(&self.db, pool_id, &leases, &rows).await
    }
}

/// The inputs in the order of their accounts, in which the statements change the rows: two statements that
/// each waited for a row of the other's would wait for ever.
fn by_account<T>(inputs: &[T], lease: impl Fn(&T) -> &LeaseRef) -> Vec<&T> {
    let mut ordered: Vec<_> = inputs.iter().collect();
    ordered.sort_unstable_by(|a, b| lease(a).account_id.cmp(&lease(b).account_id));
    ordered
}

/// An answer for each lease: the row that was changed, or why there is none.
async fn answer(
    db: &Db,
    pool_id: &PoolId,
    leases: &[&LeaseRef],
    changed: &[AccountRow],
) -> Result<Vec<LeaseAnswer>, sqlx::Error> {
    let key = |lease: &LeaseRef| (lease.account_id.clone(), lease.token);
    let changed: HashMap<(&str, i64), _> =
        changed.iter().map(|row| ((row.account_id.as_str(), row.fencing_token), row)).collect();
    let rows: Vec<_> = leases
        .iter()
        .map(|lease| changed.get(&(lease.account_id.as_str(), lease.token.0)))
        .collect();
    let missed: Vec<_> = leases
        .iter()
        .zip(&rows)
        .filter(|(_, row)| row.is_none())
        .map(|(lease, _)| key(lease))
        .collect();
    let explained = if missed.is_empty() {
        HashMap::new()
    } else {
        explain_leases(db, pool_id, &missed).await?
    };
    Ok(leases
        .iter()
        .zip(rows)
        .map(|(lease, row)| match row {
            Some(row) => {
                row.account(pool_id).map_or_else(LeaseAnswer::Unreadable, LeaseAnswer::Done)
            }
            None => explained.get(&(lease.account_id.to_string(), lease.token.0)).map_or(
                LeaseAnswer::NoAccount,
                |row| match row.account(pool_id) {
                    // Nothing in its way now, and yet it was not done: between the two statements the
                    // account came back to this very lease, which no history does.
                    Ok(account) => LeaseAnswer::Lost(
                        row.loss(lease.token).unwrap_or(LeaseLoss::TakenOver),
                        account,
                    ),
                    Err(error) => LeaseAnswer::Unreadable(error),
                },
            ),
        })
        .collect())
}

async fn explain_leases(
    db: &Db,
    pool_id: &PoolId,
    leases: &[(AccountId, FencingToken)],
) -> Result<HashMap<(String, i64), LeaseRow>, sqlx::Error> {
    let (account_ids, tokens): (Vec<_>, Vec<_>) =
        leases.iter().map(|(account_id, token)| (account_id.to_string(), token.0)).unzip();
    let rows = sqlx::query_file_as!(
        LeaseRow,
        "src/store/sql/explain_lease.sql",
        pool_id.as_str(),
        &account_ids,
        &tokens,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| ((row.account_id.clone(), row.asked_token), row)).collect())
}
