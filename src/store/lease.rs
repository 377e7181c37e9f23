//! Leases: renewing, releasing, and ending those whose time has passed. Acquiring is in
//! [`super::acquire`].

use std::time::Duration;

use futures_util::future::join_all;

use super::{
    Store, StoreError,
    account::{AccountRow, skip_unreadable},
    apply::{Applied, Asked},
    interval,
    quarantine::{Done, Statement},
};
pub use crate::domain::account::LeaseAnswer;
use crate::{
    domain::{
        account::{Account, AccountEvent, Refusal},
        id::PoolId,
        lease::{LeaseLoss, LeaseRef},
        principal::{Authority, Principal},
    },
    failpoints::{self, Guard},
};

/// How an event ended a lease, in the account's events, that ended because its time had passed.
const EXPIRED: &str = "expired";

impl Store {
    /// Makes a lease end `ttl` from now.
    pub async fn renew(
        &self,
        lease: &LeaseRef,
        ttl: Duration,
        by: Principal,
    ) -> Result<LeaseAnswer, StoreError> {
        self.under_lease(lease, AccountEvent::Renew { token: lease.token, ttl, by }).await
    }

    /// Ends a lease, or notes that it is to end while a redemption is open.
    pub async fn release(
        &self,
        lease: &LeaseRef,
        by: Authority,
    ) -> Result<LeaseAnswer, StoreError> {
        self.under_lease(lease, AccountEvent::Release { token: lease.token, by }).await
    }

    async fn under_lease(
        &self,
        lease: &LeaseRef,
        event: AccountEvent,
    ) -> Result<LeaseAnswer, StoreError> {
        let asked = Asked::new(lease.account_id.clone(), event);
        Ok(match self.apply.call(&lease.pool_id, asked).await? {
            Applied::Done(done) => LeaseAnswer::Done(done.account),
            Applied::Refused(Refusal::OtherPrincipal, _) => LeaseAnswer::OtherPrincipal,
            Applied::Refused(refusal, account) => {
                let loss = match refusal {
                    Refusal::LeaseLost(loss) => self.how_lost(lease, loss, &account).await?,
                    // No other refusal is one of a lease.
                    _ => LeaseLoss::TakenOver,
                };
                LeaseAnswer::Lost(loss, *account)
            }
            Applied::NoPool => LeaseAnswer::NoPool,
            Applied::NoAccount | Applied::Missed | Applied::NotInState => LeaseAnswer::NoAccount,
            Applied::Unreadable(error) => return Err(error),
        })
    }

    /// A lease that was followed by another may have been ended by its holder before.
    pub(super) async fn how_lost(
        &self,
        lease: &LeaseRef,
        loss: LeaseLoss,
        account: &Account,
    ) -> Result<LeaseLoss, StoreError> {
        if loss != LeaseLoss::TakenOver || account.token < lease.token {
            return Ok(loss);
        }
        let ended = sqlx::query_file!(
            "src/store/sql/account/explain_lease.sql",
            lease.pool_id.as_str(),
            &[lease.account_id.to_string()],
            &[lease.token.0],
        )
        .fetch_optional(&self.db)
        .await?;
        let was_released = ended.is_some_and(|ended| ended.reason != EXPIRED);
        Ok(if was_released { LeaseLoss::Released } else { loss })
    }

    /// Ends the leases of a pool whose time passed `within` this time, or at any time, at most `limit`. `actor` is
    /// who found them. A lease that cannot be ended is left out, and does not hold up the others.
    pub async fn expire(
        &self,
        pool_id: &PoolId,
        within: Option<Duration>,
        limit: i64,
        actor: &str,
    ) -> Result<Done<Account>, StoreError> {
        let due = sqlx::query_file_as!(
            AccountRow,
            "src/store/sql/account/list_due_leases.sql",
            pool_id.as_str(),
            limit,
            within.map(interval) as _,
            &self.quarantine.left_out(Statement::Expire, pool_id),
        )
        .fetch_all(&self.db)
        .await?;
        if due.is_empty() && within.is_none() {
            sqlx::query_file!("src/store/sql/account/remove_leases.sql", pool_id.as_str())
                .execute(&self.db)
                .await?;
        }
        let may_be_more = i64::try_from(due.len()).unwrap_or(i64::MAX) >= limit;
        let event = AccountEvent::Expire { actor: actor.to_owned() };
        let due = self.readable(Statement::Expire, pool_id, &due);
        let done = self.apply_to_all(Statement::Expire, pool_id, due, &event).await?;
        Ok(Done { may_be_more: may_be_more || done.may_be_more, ..done })
    }

    /// The accounts of the rows that can be read. The others are left out of the statement that finds them.
    pub(super) fn readable(
        &self,
        statement: Statement,
        pool_id: &PoolId,
        rows: &[AccountRow],
    ) -> Vec<Account> {
        let read = |row: &AccountRow| {
            let account = row.account(pool_id);
            let leave_out = |error: &_| {
                skip_unreadable(statement.as_str(), pool_id, &row.account_id, error);
                self.quarantine.leave_out(statement, pool_id, &row.account_id, error, false);
            };
            account.inspect_err(leave_out).ok()
        };
        rows.iter().filter_map(read).collect()
    }

    /// Lets an event happen to accounts as they were told. One that cannot be written is left out of the statement
    /// that finds them.
    pub(super) async fn apply_to_all(
        &self,
        statement: Statement,
        pool_id: &PoolId,
        accounts: Vec<Account>,
        event: &AccountEvent,
    ) -> Result<Done<Account>, StoreError> {
        let asked = accounts.iter().map(|account| Asked::about(account.clone(), event.clone()));
        let answers = join_all(asked.map(|asked| self.apply.call(pool_id, asked))).await;
        let mut done = Done { rows: Vec::new(), may_be_more: false };
        let mut refused = Vec::new();
        for (account, answer) in accounts.into_iter().zip(answers) {
            match answer {
                Ok(Applied::Done(applied)) => done.rows.push(applied.account),
                // Somebody else was there first.
                Ok(_) => {}
                Err(error) => refused.push((account.account_id, error)),
            }
        }
        let is_of_all = done.rows.is_empty() && refused.len() > 1;
        let mut is_any_left_out = false;
        for (account_id, error) in &refused {
            if is_of_a_row(error) {
                let id = account_id.as_str();
                is_any_left_out |=
                    self.quarantine.leave_out(statement, pool_id, id, error, is_of_all);
            }
        }
        match refused.into_iter().next() {
            Some((_, error)) if done.rows.is_empty() && !is_any_left_out => Err(error),
            _ => Ok(Done { may_be_more: is_any_left_out, ..done }),
        }
    }
}

/// Whether it is the account that cannot be written.
pub(super) fn is_of_a_row(error: &StoreError) -> bool {
    matches!(error, StoreError::Refused(_)) && failpoints::holds(Guard::BadRowsAreLeftOut)
}
