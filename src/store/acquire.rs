//! Acquiring: which account for whom, and why none.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use tokio::sync::OwnedSemaphorePermit;

use super::{
    Store, StoreError,
    account::{Account, Labels, account_row, labels_json, read_account_id, read_status},
    error::{is_foreign_key_violation, is_unique_violation},
    interval,
    lane::run_again_after_contention,
    walks::{Columns, Freed, Walks},
};
use crate::{
    domain::{
        account::AccountStatus,
        choice::Choice,
        id::{AccountId, Holder, PlanId, PoolId, RequestId},
    },
    injection::Step,
};

/// How many accounts the choice looks at beyond as many as are wanted: none at first, and some when too
/// few were found so, because statements of other servers may be choosing the others just now.
const SPARE: [usize; 2] = [0, 256];

/// Which accounts may be picked. What is `None` or empty does not narrow the choice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selector {
    /// Only this account.
    pub account_id: Option<AccountId>,
    /// Accounts of this plan first, then ones without a plan.
    pub plan_id: Option<PlanId>,
    /// Only accounts of this country.
    pub country_code: Option<String>,
    /// Only accounts of this country, which is the card's, or of none that is known.
    pub card_country: Option<String>,
    /// Only accounts whose plan still wants this much today, in minor units.
    pub min_headroom_minor: Option<i64>,
    /// Only accounts that carry all of these.
    pub labels: Labels,
    /// Not these.
    pub exclude: Vec<AccountId>,
}

/// A lease that is wanted.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The wish.
    pub request_id: RequestId,
    /// Who asks.
    pub holder: Holder,
    /// How long the lease is to last.
    pub ttl: Duration,
    /// The amount that the account's plan must take now, in minor units; any when not known.
    pub expected_minor: Option<i64>,
}

/// A lease that was given, now or to an earlier try of the same request.
#[derive(Clone, Debug)]
pub struct Acquired {
    /// Whether this call acquired it.
    pub fresh: bool,
    /// The status that the account had before.
    pub original_status: AccountStatus,
    /// The account under the lease.
    pub account: Account,
}

/// How many accounts of a pool there are of each choice.
pub type Counts = BTreeMap<Choice, i64>;

/// An account that was considered.
#[derive(Clone, Debug)]
pub struct Considered {
    /// Its name.
    pub account_id: AccountId,
    /// Whether it would be picked, or why not.
    pub choice: Choice,
    /// What its plan, or the one that it would be bound to, still wants, in minor units.
    pub headroom_minor: Option<i64>,
    /// How much of that today.
    pub day_headroom_minor: Option<i64>,
}

/// Whether what an acquisition names is there at all.
#[derive(Clone, Copy, Debug)]
pub struct SelectorCheck {
    /// The pool.
    pub pool_exists: bool,
    /// The pool begins nothing new.
    pub pool_paused: bool,
    /// The pool gives out no new leases.
    pub pool_draining: bool,
    /// The plan that the selector names, if it names one.
    pub plan_exists: bool,
    /// The account that the selector names, if it names one.
    pub account_exists: bool,
}

account_row!(AcquiredRow {
    request_id: String,
    fresh: bool,
    resume_status: String,
    walk_plan_key: Option<String>,
    walk_first: Option<i64>,
    walk_since: Option<time::OffsetDateTime>
});

struct ConsideredRow {
    verdict: String,
    accounts: i64,
    account_id: Option<String>,
    headroom_minor: Option<i64>,
    day_headroom_minor: Option<i64>,
}

impl Store {
    /// Leases free accounts that `selector` allows to the requests: each in its turn gets the first, in
    /// the order of the choice, whose plan wants what it expects. A request that has a lease already gets
    /// that; one that is not in the answer found nothing. No two of `wanted` may have the same
    /// `request_id`. `walks` are those of earlier calls with the same wish, or none.
    ///
    /// May be repeated when the reply was lost: the requests then have their leases already.
    pub async fn acquire(
        &self,
        pool_id: &PoolId,
        selector: &Selector,
        wanted: &[Wanted],
        walks: &mut Walks,
    ) -> Result<HashMap<RequestId, Acquired>, StoreError> {
        let mut found = HashMap::new();
        let mut spares = &SPARE[..];
        // Most wish the same, and are served by a walk alone.
        let same = wanted.windows(2).all(|two| two[0].expected_minor == two[1].expected_minor);
        if same && selector.account_id.is_none() {
            found = self.walk(pool_id, selector, wanted, walks).await?;
            if found.len() == wanted.len() || !walks.may_search() {
                return Ok(found);
            }
            // As many as are wanted were looked at by the walk.
            spares = &SPARE[1..];
        }
        let begun = Instant::now();
        for spare in spares {
            let rest = missing(wanted, &found);
            if !rest.is_empty() {
                match self.search(pool_id, selector, &rest, *spare).await {
                    Ok(more) => found.extend(more),
                    // Those who have their lease hear of it; the others are tried again.
                    Err(error) if !found.is_empty() => {
                        tracing::warn!(%pool_id, %error, "some were not looked at once more");
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        walks.searched(begun.elapsed());
        Ok(found)
    }

    /// Serves those who wish the same, by a walk from where earlier ones came to.
    async fn walk(
        &self,
        pool_id: &PoolId,
        selector: &Selector,
        wanted: &[Wanted],
        walks: &mut Walks,
    ) -> Result<HashMap<RequestId, Acquired>, StoreError> {
        let from = walks.begin();
        let begun = Instant::now();
        let rows = run_again(|| self.walk_rows(pool_id, selector, wanted, &from)).await?;
        let lasting = begun.elapsed();
        let mut taken = Vec::with_capacity(rows.len());
        for row in &rows {
            if let (Some(plan_key), Some(first), Some(since)) =
                (&row.walk_plan_key, row.walk_first, row.walk_since)
            {
                let status = read_status(&row.resume_status)?;
                taken.push(Freed::standing(plan_key, status, row.plan_day, -first, since));
            }
        }
        walks.walked(lasting, taken);
        read_acquired(pool_id, &rows)
    }

    async fn walk_rows(
        &self,
        pool_id: &PoolId,
        selector: &Selector,
        wanted: &[Wanted],
        from: &Columns,
    ) -> Result<Vec<AcquiredRow>, sqlx::Error> {
        sqlx::query_file_as!(
            AcquiredRow,
            "src/store/sql/acquire.sql",
            pool_id.as_str(),
            &wanted.iter().map(|w| w.request_id.to_string()).collect::<Vec<_>>(),
            &wanted.iter().map(|w| w.holder.to_string()).collect::<Vec<_>>(),
            &wanted.iter().map(|w| interval(w.ttl)).collect::<Vec<_>>(),
            wanted.first().and_then(|w| w.expected_minor),
            i64::try_from(wanted.len()).unwrap_or(i64::MAX),
            selector.plan_id.as_ref().map(PlanId::as_str),
            selector.country_code.as_deref(),
            selector.card_country.as_deref(),
            selector.min_headroom_minor,
            labels_json(&selector.labels),
            &excluded(selector),
            &from.plan_keys,
            &from.statuses,
            &from.days,
            &from.firsts,
            &from.sinces,
            &from.lasts as &[Option<i64>],
            &from.untils as &[Option<time::OffsetDateTime>],
        )
        .fetch_all(&self.db)
        .await
    }

    /// Serves those who wish different things, or for whom a walk found nothing.
    async fn search(
        &self,
        pool_id: &PoolId,
        selector: &Selector,
        wanted: &[Wanted],
        spare: usize,
    ) -> Result<HashMap<RequestId, Acquired>, StoreError> {
        let most = wanted.len() + spare;
        let rows = run_again(|| self.search_rows(pool_id, selector, wanted, most)).await?;
        read_acquired(pool_id, &rows)
    }

    async fn search_rows(
        &self,
        pool_id: &PoolId,
        selector: &Selector,
        wanted: &[Wanted],
        most: usize,
    ) -> Result<Vec<AcquiredRow>, sqlx::Error> {
        sqlx::query_file_as!(
            AcquiredRow,
            "src/store/sql/acquire_any.sql",
            pool_id.as_str(),
            &wanted.iter().map(|w| w.request_id.to_string()).collect::<Vec<_>>(),
            &wanted.iter().map(|w| w.holder.to_string()).collect::<Vec<_>>(),
            &wanted.iter().map(|w| interval(w.ttl)).collect::<Vec<_>>(),
            &wanted.iter().map(|w| w.expected_minor).collect::<Vec<_>>() as &[Option<i64>],
            i64::try_from(most).unwrap_or(i64::MAX),
            selector.account_id.as_ref().map(AccountId::as_str),
            selector.plan_id.as_ref().map(PlanId::as_str),
            selector.country_code.as_deref(),
            selector.card_country.as_deref(),
            selector.min_headroom_minor,
            labels_json(&selector.labels),
            &excluded(selector),
        )
        .fetch_all(&self.db)
        .await
    }

    /// Puts accounts whose time has come, at most `limit`, where acquire finds them in order. Answers
    /// with where they stand there.
    pub async fn unpark(&self, pool_id: &PoolId, limit: usize) -> Result<Vec<Freed>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        sqlx::query_file!("src/store/sql/unpark.sql", pool_id.as_str(), limit)
            .fetch_all(&self.db)
            .await?
            .into_iter()
            .map(|row| {
                let status = read_status(&row.status)?;
                let plan_key = row.plan_id.as_deref().unwrap_or_default();
                Ok(Freed::standing(
                    plan_key,
                    status,
                    row.plan_day,
                    row.balance_minor,
                    row.idle_since,
                ))
            })
            .collect()
    }

    /// Whether what an acquisition names is there at all.
    pub async fn check_selector(
        &self,
        pool_id: &PoolId,
        selector: &Selector,
    ) -> Result<SelectorCheck, StoreError> {
        Ok(sqlx::query_file_as!(
            SelectorCheck,
            "src/store/sql/explain_selector.sql",
            pool_id.as_str(),
            selector.plan_id.as_ref().map(PlanId::as_str),
            selector.account_id.as_ref().map(AccountId::as_str),
        )
        .fetch_one(&self.db)
        .await?)
    }

    /// What an acquisition would make of the pool's accounts now: how many there are of each choice, and
    /// the first `limit` of them; those that would be picked come first, in their order. Reads every
    /// account of the pool: `permit` is given back when that has ended, also when nobody waits for it.
    pub async fn explain_acquire(
        &self,
        pool_id: &PoolId,
        selector: &Selector,
        expected_minor: Option<i64>,
        limit: i64,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Result<(Counts, Vec<Considered>), StoreError> {
        let rows = sqlx::query_file_as!(
            ConsideredRow,
            "src/store/sql/explain_acquire.sql",
            pool_id.as_str(),
            selector.account_id.as_ref().map(AccountId::as_str),
            selector.plan_id.as_ref().map(PlanId::as_str),
            selector.country_code.as_deref(),
            selector.card_country.as_deref(),
            selector.min_headroom_minor,
            labels_json(&selector.labels),
            &excluded(selector),
            expected_minor,
            limit,
        )
        .fetch_all(&permit.map_or_else(|| self.rest.clone(), |permit| self.rest.under(permit)))
        .await?;
        let mut counts = Counts::new();
        let mut considered = Vec::new();
        for row in rows {
            let choice = Choice::parse(&row.verdict).ok_or(StoreError::Unreadable("verdict"))?;
            counts.insert(choice, row.accounts);
            if let Some(account_id) = &row.account_id {
                considered.push(Considered {
                    account_id: read_account_id(account_id)?,
                    choice,
                    headroom_minor: row.headroom_minor,
                    day_headroom_minor: row.day_headroom_minor,
                });
            }
        }
        Ok((counts, considered))
    }
}

/// Runs the statement, again after it met another one.
async fn run_again<F>(statement: impl FnMut() -> F) -> Result<Vec<AcquiredRow>, StoreError>
where
    F: Future<Output = Result<Vec<AcquiredRow>, sqlx::Error>>,
{
    // A unique violation: the same request is being served by another server. Next time its
    // lease is seen. A foreign key's: the plan was deleted, and is not there next time.
    run_again_after_contention(Step::Acquire, statement, |error| {
        is_unique_violation(error) || is_foreign_key_violation(error)
    })
    .await
}

fn read_acquired(
    pool_id: &PoolId,
    rows: &[AcquiredRow],
) -> Result<HashMap<RequestId, Acquired>, StoreError> {
    rows.iter()
        .map(|row| {
            let request_id = RequestId::parse_any(&row.request_id)
                .map_err(|_| StoreError::Unreadable("accounts.lease_request_id"))?;
            let original_status = read_status(&row.resume_status)?;
            let account = row.account(pool_id)?;
            Ok((request_id, Acquired { fresh: row.fresh, original_status, account }))
        })
        .collect()
}

/// Those who were not served.
fn missing(wanted: &[Wanted], found: &HashMap<RequestId, Acquired>) -> Vec<Wanted> {
    wanted.iter().filter(|one| !found.contains_key(&one.request_id)).cloned().collect()
}

fn excluded(selector: &Selector) -> Vec<String> {
    selector.exclude.iter().map(AccountId::to_string).collect()
}
