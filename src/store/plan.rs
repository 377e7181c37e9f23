//! Plans: how they are stored, and what their changes do to accounts.

use std::time::Duration;

use serde_json::Value;
use sqlx::postgres::types::PgInterval;
use time::OffsetDateTime;

use super::{
    Store, StoreError,
    account::{AccountRow, read_account_id},
    audit::{self, Written},
    duration, interval,
    page::{MAX_BYTES, read_page},
    pg::error::is_foreign_key_violation,
    quarantine::Statement,
};
use crate::domain::{
    account::AccountEvent,
    id::{AccountId, PlanId, PoolId},
    page::Page,
    plan::{Denominations, Progress, Terms},
    pool::Plan,
    principal::Authority,
};

/// Declares the row of a statement that answers with plans: the columns that all of them share, and those of
/// its own.
macro_rules! plan_row {
    ($name:ident { $($own:ident: $type:ty),* }) => {
        struct $name {
            $($own: $type,)*
            plan_id: String,
            target_minor: i64,
            day_amounts_minor: Vec<i64>,
            day_tolerance_minor: i64,
            day_interval: PgInterval,
            redemption_interval: PgInterval,
            smallest_minor: i64,
            largest_minor: Option<i64>,
            step_minor: Option<i64>,
            fixed_minor: Option<Vec<i64>>,
            created_at: OffsetDateTime,
            updated_at: OffsetDateTime,
        }

        impl $name {
            fn read(self, pool_id: &PoolId) -> Result<Plan, StoreError> {
                let denominations = denominations(
                    self.fixed_minor,
                    self.step_minor,
                    self.smallest_minor,
                    self.largest_minor,
                );
                Ok(Plan {
                    pool_id: pool_id.clone(),
                    plan_id: PlanId::parse(&self.plan_id)
                        .map_err(|_| StoreError::Unreadable("plans.plan_id"))?,
                    terms: Terms {
                        target_minor: self.target_minor,
                        day_amounts_minor: self.day_amounts_minor,
                        day_tolerance_minor: self.day_tolerance_minor,
                        day_interval: duration(&self.day_interval),
                        redemption_interval: duration(&self.redemption_interval),
                        denominations,
                    },
                    created_at: self.created_at,
                    updated_at: self.updated_at,
                })
            }
        }
    };
}

/// Denominations, as the table has them.
pub(super) fn denominations(
    fixed_minor: Option<Vec<i64>>,
    step_minor: Option<i64>,
    smallest_minor: i64,
    largest_minor: Option<i64>,
) -> Denominations {
    match (fixed_minor, step_minor) {
        (Some(amounts), _) => Denominations::Fixed(amounts.into()),
        (None, Some(base)) => Denominations::MultiplesOf(base),
        (None, None) => Denominations::Any { smallest_minor, largest_minor },
    }
}

/// What a search for completed accounts whose plan wants more did.
#[derive(Debug, Default)]
pub struct Reopened {
    /// How many are open again.
    pub reopened: usize,
    /// After which account there may be more.
    pub more_after: Option<String>,
    /// Some could not be reopened now: somebody else has them, or they cannot be written.
    pub is_any_left: bool,
}

plan_row!(PlanRow {});
plan_row!(ListedRow { more: bool });
plan_row!(ChangedRow { before: Option<Value>, after: Option<Value> });

impl ChangedRow {
    /// Says in the log what was recorded of the change.
    fn told(mut self, by: &Authority, pool_id: &PoolId, action: &str) -> Self {
        let (before, after) = (self.before.take(), self.after.take());
        let (pool_id, subject, reason) = (pool_id.as_str(), &*self.plan_id, "");
        audit::log_written(by, &Written { action, pool_id, subject, before, after, reason });
        self
    }
}

impl Store {
    /// Creates a plan; `None` when it is there already.
    pub async fn insert_plan(
        &self,
        pool_id: &PoolId,
        plan_id: &PlanId,
        terms: &Terms,
        by: &Authority,
    ) -> Result<Option<Plan>, StoreError> {
        let columns = Columns::of(terms);
        let inserted = sqlx::query_file_as!(
            ChangedRow,
            "src/store/sql/plan/insert_plan.sql",
            pool_id.as_str(),
            plan_id.as_str(),
            terms.target_minor,
            &terms.day_amounts_minor,
            terms.day_tolerance_minor,
            interval(terms.day_interval),
            interval(terms.redemption_interval),
            columns.smallest,
            columns.largest,
            columns.step,
            columns.fixed.as_deref(),
            by.principal.name(),
            by.peer(),
        )
        .fetch_optional(&self.db)
        .await;
        self.ready.changed(pool_id);
        let inserted = match inserted {
            // There is no such pool any more.
            Err(error) if is_foreign_key_violation(&error) => return Ok(None),
            inserted => inserted?,
        };
        inserted.map(|row| row.told(by, pool_id, "CreatePlan").read(pool_id)).transpose()
    }

    /// Reads a plan.
    pub async fn get_plan(
        &self,
        pool_id: &PoolId,
        plan_id: &PlanId,
    ) -> Result<Option<Plan>, StoreError> {
        sqlx::query_file_as!(
            PlanRow,
            "src/store/sql/plan/get_plan.sql",
            pool_id.as_str(),
            plan_id.as_str(),
        )
        .fetch_optional(&self.db)
        .await?
        .map(|row| row.read(pool_id))
        .transpose()
    }

    /// Lists the plans of a pool after `after` (exclusive), at most `limit`.
    pub async fn list_plans(
        &self,
        pool_id: &PoolId,
        after: &str,
        limit: i64,
    ) -> Result<Page<Plan>, StoreError> {
        let rows = sqlx::query_file_as!(
            ListedRow,
            "src/store/sql/plan/list_plans.sql",
            pool_id.as_str(),
            after,
            limit,
            MAX_BYTES,
        );
        let found = rows.fetch_all(&self.rest).await?;
        read_page(found, limit, |row| row.more, |row| row.read(pool_id))
    }

    /// Gives a plan, which is as `now` says, other terms; `None` when it is not so any more.
    pub async fn update_plan(
        &self,
        now: &Plan,
        terms: &Terms,
        by: &Authority,
    ) -> Result<Option<Plan>, StoreError> {
        let columns = Columns::of(terms);
        let updated = sqlx::query_file_as!(
            ChangedRow,
            "src/store/sql/plan/update_plan.sql",
            now.pool_id.as_str(),
            now.plan_id.as_str(),
            terms.target_minor,
            &terms.day_amounts_minor,
            terms.day_tolerance_minor,
            interval(terms.day_interval),
            interval(terms.redemption_interval),
            columns.smallest,
            columns.largest,
            columns.step,
            columns.fixed.as_deref(),
            now.updated_at,
            by.principal.name(),
            by.peer(),
        )
        .fetch_optional(&self.db)
        .await?;
        self.ready.changed(&now.pool_id);
        let pool_id = &now.pool_id;
        updated.map(|row| row.told(by, pool_id, "UpdatePlan").read(pool_id)).transpose()
    }

    /// Lets free accounts of a plan go on to their next day, where this one has nothing left to take. At most
    /// `limit` accounts after `after` are read. Answers with how many did, and after which account there may be
    /// more. An account that cannot be written is left out, and does not hold up the others.
    pub async fn advance_days(
        &self,
        pool_id: &PoolId,
        plan_id: &PlanId,
        limit: i64,
        actor: &str,
        after: &str,
    ) -> Result<(usize, Option<String>), StoreError> {
        let Some(plan) = self.get_plan(pool_id, plan_id).await? else { return Ok((0, None)) };
        let days = i32::try_from(plan.terms.day_amounts_minor.len()).unwrap_or(i32::MAX);
        let statement = Statement::AdvanceDays;
        let open = sqlx::query_file_as!(
            AccountRow,
            "src/store/sql/account/list_open_days.sql",
            pool_id.as_str(),
            plan_id.as_str(),
            days,
            after,
            limit,
            &self.quarantine.left_out(statement, pool_id),
        )
        .fetch_all(&self.rest)
        .await?;
        let is_page_full = i64::try_from(open.len()).unwrap_or(i64::MAX) >= limit;
        let last = open.last().map(|row| row.account_id.clone()).filter(|_| is_page_full);
        // Most days are not over. What is to be written is decided once more, by the terms of that moment.
        let over: Vec<_> = open
            .into_iter()
            .filter(|row| {
                plan.terms.is_day_over(&Progress {
                    balance_minor: row.balance_minor,
                    day: row.plan_day,
                    day_credited_minor: row.day_credited_minor,
                })
            })
            .collect();
        let event = AccountEvent::EndDay { actor: actor.to_owned() };
        let over = self.readable(statement, pool_id, &over);
        let done = self.apply_to_all(statement, pool_id, over, &event).await?;
        Ok((done.rows.len(), last))
    }

    /// Reopens completed accounts of a plan that wants more than they have. At most `limit` accounts after `after` are
    /// read. An account that cannot be written is left out, and does not hold up the others.
    pub async fn reopen_completed(
        &self,
        pool_id: &PoolId,
        plan_id: &PlanId,
        limit: i64,
        actor: &str,
        after: &str,
    ) -> Result<Reopened, StoreError> {
        let Some(plan) = self.get_plan(pool_id, plan_id).await? else {
            return Ok(Reopened::default());
        };
        let statement = Statement::Reopen;
        let left_out = self.quarantine.left_out(statement, pool_id);
        let completed = sqlx::query_file_as!(
            AccountRow,
            "src/store/sql/account/list_completed.sql",
            pool_id.as_str(),
            plan_id.as_str(),
            plan.terms.target_minor,
            after,
            limit,
            &left_out,
        )
        .fetch_all(&self.rest)
        .await?;
        let is_page_full = i64::try_from(completed.len()).unwrap_or(i64::MAX) >= limit;
        let more_after =
            completed.last().map(|row| row.account_id.clone()).filter(|_| is_page_full);
        let event = AccountEvent::Reopen { actor: actor.to_owned() };
        let found = completed.len();
        let completed = self.readable(statement, pool_id, &completed);
        let reopened = self.apply_to_all(statement, pool_id, completed, &event).await?.rows.len();
        Ok(Reopened { reopened, more_after, is_any_left: reopened < found || !left_out.is_empty() })
    }

    /// The plans of any pool that were changed, and when they last were: within this time, or ever.
    pub async fn changed_plans(
        &self,
        within: Option<Duration>,
    ) -> Result<Vec<(PoolId, PlanId, OffsetDateTime)>, StoreError> {
        sqlx::query_file!("src/store/sql/plan/changed_plans.sql", within.map(interval))
            .fetch_all(&self.db)
            .await?
            .into_iter()
            .map(|row| {
                let plan_id = PlanId::parse(&row.plan_id);
                Ok((
                    super::pool::read_pool_id(&row.pool_id)?,
                    plan_id.map_err(|_| StoreError::Unreadable("plans.plan_id"))?,
                    row.updated_at,
                ))
            })
            .collect()
    }

    /// The plans of any pool that have days: those that were changed lately, or all of them.
    pub async fn plans_with_days(
        &self,
        changed_within: Option<Duration>,
    ) -> Result<Vec<(PoolId, PlanId)>, StoreError> {
        sqlx::query_file!("src/store/sql/plan/plans_with_days.sql", changed_within.map(interval))
            .fetch_all(&self.db)
            .await?
            .into_iter()
            .map(|row| {
                let plan_id = PlanId::parse(&row.plan_id);
                Ok((
                    super::pool::read_pool_id(&row.pool_id)?,
                    plan_id.map_err(|_| StoreError::Unreadable("plans.plan_id"))?,
                ))
            })
            .collect()
    }

    /// Deletes a plan that no account is bound to; whether it did.
    pub async fn delete_plan(
        &self,
        pool_id: &PoolId,
        plan_id: &PlanId,
        by: &Authority,
    ) -> Result<bool, StoreError> {
        let deleted = sqlx::query_file_scalar!(
            "src/store/sql/plan/delete_plan.sql",
            pool_id.as_str(),
            plan_id.as_str(),
            by.principal.name(),
            by.peer(),
        )
        .fetch_optional(&self.db)
        .await;
        self.ready.changed(pool_id);
        // An account may have been bound to it meanwhile.
        audit::deleted(by, "DeletePlan", [pool_id.as_str(), plan_id.as_str()], deleted)
    }

    /// One of the accounts that are bound to a plan.
    pub async fn get_plan_user(
        &self,
        pool_id: &PoolId,
        plan_id: &PlanId,
    ) -> Result<Option<AccountId>, StoreError> {
        sqlx::query_file_scalar!(
            "src/store/sql/plan/get_plan_user.sql",
            pool_id.as_str(),
            plan_id.as_str(),
        )
        .fetch_optional(&self.db)
        .await?
        .map(|id| read_account_id(&id))
        .transpose()
    }
}

/// Denominations, as the table has them.
struct Columns {
    smallest: i64,
    largest: Option<i64>,
    step: Option<i64>,
    fixed: Option<Vec<i64>>,
}

impl Columns {
    fn of(terms: &Terms) -> Self {
        let denominations = &terms.denominations;
        let fixed = match denominations {
            Denominations::Fixed(amounts) => Some(amounts.to_vec()),
            _ => None,
        };
        Self {
            smallest: denominations.smallest_minor(),
            largest: denominations.largest_minor(),
            step: denominations.step_minor(),
            fixed,
        }
    }
}
