//! The terms of pools, as they were read last. Each statement that changes an account names the revision of the
//! terms from which it was decided. Terms that are old are refused, and read again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use sqlx::postgres::types::PgInterval;

use super::{StoreError, account::read_plan_id, db::Db, duration, plan::denominations, shrink};
use crate::domain::{
    hold::Holds,
    id::{PlanId, PoolId},
    plan::Terms,
    pool::PoolTerms,
};

struct TermsRow {
    revision: i64,
    paused: bool,
    draining: bool,
    hold_login_invalid: PgInterval,
    hold_limit_reached: PgInterval,
    hold_throttled: PgInterval,
    hold_longest: PgInterval,
    plan_id: Option<String>,
    target_minor: Option<i64>,
    day_amounts_minor: Option<Vec<i64>>,
    day_tolerance_minor: Option<i64>,
    day_interval: Option<PgInterval>,
    redemption_interval: Option<PgInterval>,
    smallest_minor: Option<i64>,
    largest_minor: Option<i64>,
    step_minor: Option<i64>,
    fixed_minor: Option<Vec<i64>>,
}

#[derive(Debug, Default)]
struct Cached {
    /// How often terms were forgotten: what was being read then may be as old.
    forgotten: u64,
    /// The connections over which they were told.
    generation: u64,
    terms: HashMap<PoolId, Arc<PoolTerms>>,
}

/// See [the module](self). Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct TermsCache(Arc<Mutex<Cached>>);

impl TermsCache {
    /// The terms as they were read last, if they were and are not forgotten.
    pub(super) fn last(&self, db: &Db, pool_id: &PoolId) -> Option<Arc<PoolTerms>> {
        let mut cached = self.cached();
        if cached.generation != db.generation() {
            // The database may have lost what it told.
            cached.generation = db.generation();
            cached.forgotten += 1;
            cached.terms.clear();
        }
        cached.terms.get(pool_id).cloned()
    }

    /// Reads the terms as they are; `None` when there is no such pool.
    pub(super) async fn read(
        &self,
        db: &Db,
        pool_id: &PoolId,
    ) -> Result<Option<Arc<PoolTerms>>, sqlx::Error> {
        let forgotten = self.cached().forgotten;
        let Some(terms) = read_now(db, pool_id).await? else { return Ok(None) };
        let mut cached = self.cached();
        if cached.forgotten == forgotten {
            cached.terms.insert(pool_id.clone(), Arc::clone(&terms));
        }
        Ok(Some(terms))
    }

    /// Forgets terms by which something could not be done: they may have changed.
    pub(super) fn forget(&self, pool_id: &PoolId) {
        let mut cached = self.cached();
        cached.forgotten += 1;
        cached.terms.remove(pool_id);
    }

    /// Lets go of the terms of a pool that nobody uses. They are as good as they were, for those who read them just now.
    pub(super) fn let_go(&self, pool_id: &PoolId) {
        let mut cached = self.cached();
        cached.terms.remove(pool_id);
        shrink(&mut cached.terms);
    }

    fn cached(&self) -> MutexGuard<'_, Cached> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the terms as they are, for one use.
pub(super) async fn read_now(
    db: &Db,
    pool_id: &PoolId,
) -> Result<Option<Arc<PoolTerms>>, sqlx::Error> {
    let rows = sqlx::query_file_as!(TermsRow, "src/store/sql/pool/get_terms.sql", pool_id.as_str())
        .fetch_all(db)
        .await?;
    let terms = read(rows).map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    Ok(terms.map(Arc::new))
}

fn read(rows: Vec<TermsRow>) -> Result<Option<PoolTerms>, StoreError> {
    let Some(first) = rows.first() else { return Ok(None) };
    let mut terms = PoolTerms {
        revision: first.revision,
        paused: first.paused,
        draining: first.draining,
        holds: Holds {
            login_invalid: duration(&first.hold_login_invalid),
            limit_reached: duration(&first.hold_limit_reached),
            throttled: duration(&first.hold_throttled),
            longest: duration(&first.hold_longest),
        },
        plans: HashMap::with_capacity(rows.len()),
    };
    for row in rows {
        if let Some((plan_id, plan)) = row.plan()? {
            terms.plans.insert(plan_id, plan);
        }
    }
    Ok(Some(terms))
}

impl TermsRow {
    fn plan(self) -> Result<Option<(PlanId, Terms)>, StoreError> {
        let Some(plan_id) = self.plan_id.as_deref() else { return Ok(None) };
        let plan_id = read_plan_id(plan_id)?;
        let smallest = self.smallest_minor.unwrap_or(1);
        let terms = Terms {
            target_minor: self.target_minor.unwrap_or_default(),
            day_amounts_minor: self.day_amounts_minor.unwrap_or_default(),
            day_tolerance_minor: self.day_tolerance_minor.unwrap_or_default(),
            day_interval: self.day_interval.as_ref().map(duration).unwrap_or_default(),
            redemption_interval: self
                .redemption_interval
                .as_ref()
                .map(duration)
                .unwrap_or_default(),
            denominations: denominations(
                self.fixed_minor,
                self.step_minor,
                smallest,
                self.largest_minor,
            ),
        };
        Ok(Some((plan_id, terms)))
    }
}
