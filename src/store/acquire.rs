//! Acquiring: which account for whom, and why none.

mod one_by_one;

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use tokio::sync::OwnedSemaphorePermit;

use super::{
    Store, StoreError,
    account::{
        Account, Labels, account_row, labels_json, read_account_id, read_status, skip_unreadable,
    },
    error::{is_foreign_key_violation, is_of_a_row, is_violation_of},
    interval,
    lane::run_again_after_contention,
    quarantine::{Done, Rows, Statement},
    walks::{Columns, Freed, Walks},
};
use crate::{
    domain::{
        account::AccountStatus,
        choice::Choice,
        id::{AccountId, Holder, PlanId, PoolId, RequestId},
    },
    failpoints::Step,
};

/// How many accounts the choice looks at beyond as many as are wanted: none at first, and some when too
/// few were found so, because statements of other servers may be choosing the others just now.
const SPARE: [usize; 2] = [0, 256];

/// How often those who wait are tried, each time without the accounts that could not be written or read before.
const MAX_ROUNDS: usize = 4;

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

struct UnparkedRow {
    plan_id: Option<String>,
    status: String,
    plan_day: i32,
    balance_minor: i64,
    idle_since: time::OffsetDateTime,
}

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
    /// `request_id`. `walks` are those of earlier calls with the same wish, or none. An account that cannot be
    /// written is left out, and the next best is taken.
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
        let mut rounds = 0;
        loop {
            let rest = missing(wanted, &found);
            rounds += 1;
            let error = match self.acquire_together(pool_id, selector, &rest, walks).await {
                Ok(Together { leased, is_all_read: true }) => {
                    found.extend(leased);
                    return Ok(found);
                }
                // Whose lease could not be read has given it back, and is tried again without that account.
                Ok(Together { leased, .. }) => {
                    found.extend(leased);
                    if rounds >= MAX_ROUNDS {
                        return Ok(found);
                    }
                    continue;
                }
                Err(error) => error,
            };
            let is_last = rounds >= MAX_ROUNDS || !is_of_a_row(&error);
            let is_progress = !is_last && {
                let (leased, is_any_left_out) =
                    self.acquire_one_by_one(pool_id, selector, &rest).await?;
                let is_any_leased = !leased.is_empty();
                found.extend(leased);
                is_any_leased || is_any_left_out
            };
            if !is_progress {
                // Those who have their lease hear of it; the others are tried again.
                return if found.is_empty() { Err(error.into()) } else { Ok(found) };
            }
            if missing(wanted, &found).is_empty() {
                return Ok(found);
            }
        }
    }

    async fn acquire_together(
        &self,
        pool_id: &PoolId,
        selector: &Selector,
        wanted: &[Wanted],
        walks: &mut Walks,
    ) -> Result<Together, sqlx::Error> {
        let mut together = Together { leased: HashMap::new(), is_all_read: true };
        let mut spares = &SPARE[..];
        // Most wish the same, and are served by a walk alone.
        let same = wanted.windows(2).all(|two| two[0].expected_minor == two[1].expected_minor);
        if same && selector.account_id.is_none() {
            together = self.walk(pool_id, selector, wanted, walks).await?;
            if together.leased.len() == wanted.len() || !walks.may_search() {
                return Ok(together);
            }
            // As many as are wanted were looked at by the walk.
            spares = &SPARE[1..];
        }
        let begun = Instant::now();
        for spare in spares {
            let rest = missing(wanted, &together.leased);
            if !rest.is_empty() {
                match self.search(pool_id, selector, &rest, *spare).await {
                    Ok(more) => together.add(more),
                    // Those who have their lease hear of it; the others are tried again.
                    Err(error) if !together.leased.is_empty() => {
                        tracing::warn!(%pool_id, %error, "some were not looked at once more");
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        walks.searched(begun.elapsed());
        Ok(together)
    }

    /// Serves those who wish the same, by a walk from where earlier ones came to.
    async fn walk(
        &self,
        pool_id: &PoolId,
        selector: &Selector,
        wanted: &[Wanted],
        walks: &mut Walks,
    ) -> Result<Together, sqlx::Error> {
        let from = walks.begin();
        let begun = Instant::now();
        let rows = run_again(|| self.walk_rows(pool_id, selector, wanted, &from)).await?;
        let lasting = begun.elapsed();
        let mut taken = Vec::with_capacity(rows.len());
        for row in &rows {
            if let (Some(plan_key), Some(first), Some(since)) =
                (&row.walk_plan_key, row.walk_first, row.walk_since)
            {
                let Ok(status) = read_status(&row.resume_status) else { continue };
                taken.push(Freed::standing(plan_key, status, row.plan_day, -first, since));
            }
        }
        walks.walked(lasting, taken);
        Ok(self.read_acquired(pool_id, &rows).await)
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
            &self.excluded(pool_id, selector),
            &from.plan_keys,
            &from.statuses,
            &from.days,
            &from.firsts,
            &from.sinces,
            &from.lasts as &[Option<i64>],
            &from.untils as &[Option<time::OffsetDateTime>],
        )
        .fetch_all(&self.acquiring)
        .await
    }

    /// Serves those who wish different things, or for whom a walk found nothing.
    async fn search(
        &self,
        pool_id: &PoolId,
        selector: &Selector,
        wanted: &[Wanted],
        spare: usize,
    ) -> Result<Together, sqlx::Error> {
        let most = wanted.len() + spare;
        let rows = run_again(|| self.search_rows(pool_id, selector, wanted, most)).await?;
        Ok(self.read_acquired(pool_id, &rows).await)
    }

    /// Reads leases that were given. One whose account cannot be read is given back: nobody could use it.
    async fn read_acquired(&self, pool_id: &PoolId, rows: &[AcquiredRow]) -> Together {
        let mut together = Together { leased: HashMap::new(), is_all_read: true };
        for row in rows {
            match read_lease_of(pool_id, row) {
                Ok((request_id, acquired)) => {
                    together.leased.insert(request_id, acquired);
                }
                Err(error) => {
                    together.is_all_read = false;
                    self.quarantine.leave_out(
                        Statement::Acquire,
                        pool_id,
                        &row.account_id,
                        &error,
                        false,
                    );
                    if row.fresh {
                        self.give_back_unread(pool_id, row).await;
                    }
                }
            }
        }
        together
    }

    async fn give_back_unread(&self, pool_id: &PoolId, row: &AcquiredRow) {
        let (account_id, token) = (&row.account_id, row.fencing_token);
        let given_back = sqlx::query_file!(
            "src/store/sql/release.sql",
            pool_id.as_str(),
            std::slice::from_ref(account_id),
            &[token],
        )
        .fetch_all(&self.db)
        .await;
        if let Err(error) = given_back {
            tracing::warn!(
                %pool_id, %account_id, %error,
                "the lease of an account that cannot be read could not be released, and ends by itself"
            );
        }
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
            &self.excluded(pool_id, selector),
        )
        .fetch_all(&self.acquiring)
        .await
    }

    /// The accounts that are not wanted, and those that cannot be written.
    fn excluded(&self, pool_id: &PoolId, selector: &Selector) -> Vec<String> {
        let mut excluded = self.quarantine.left_out(Statement::Acquire, pool_id);
        excluded.extend(selector.exclude.iter().map(AccountId::to_string));
        excluded
    }

    /// Puts accounts whose time has come, at most `limit`, where acquire finds them in order. Answers
    /// with where they stand there. One that cannot be written is left out, and does not hold up the others.
    pub async fn unpark(&self, pool_id: &PoolId, limit: usize) -> Result<Done<Freed>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let unpark = |rows: Rows| async move {
            let unpark = sqlx::query_file_as!(
                UnparkedRow,
                "src/store/sql/unpark.sql",
                pool_id.as_str(),
                limit,
                &rows.ids,
                rows.only,
            );
            unpark.fetch_all(&self.db).await
        };
        let list = |limit: i64| {
            sqlx::query_file_scalar!("src/store/sql/list_due_accounts.sql", pool_id.as_str(), limit)
                .fetch_all(&self.db)
        };
        let unparked = self.quarantine.run(Statement::Unpark, pool_id, limit, unpark, list).await?;
        let freed = |row: &UnparkedRow| {
            let status = read_status(&row.status).ok()?;
            let plan_key = row.plan_id.as_deref().unwrap_or_default();
            let (day, balance, since) = (row.plan_day, row.balance_minor, row.idle_since);
            Some(Freed::standing(plan_key, status, day, balance, since))
        };
        let rows = unparked.rows.iter().filter_map(freed).collect();
        Ok(Done { rows, may_be_more: unparked.may_be_more })
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

    /// Whether a pool has more accounts than `most`.
    pub async fn has_more_accounts(&self, pool_id: &PoolId, most: i64) -> Result<bool, StoreError> {
        let has_more = sqlx::query_file_scalar!(
            "src/store/sql/has_more_accounts.sql",
            pool_id.as_str(),
            most,
        );
        Ok(has_more.fetch_one(&self.db).await?)
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
        let rows = self.explain_rows(pool_id, selector, expected_minor, limit, permit).await?;
        let mut counts = Counts::new();
        let mut considered = Vec::new();
        for row in rows {
            let choice = Choice::parse(&row.verdict).ok_or(StoreError::Unreadable("verdict"))?;
            counts.insert(choice, row.accounts);
            let Some(account_id) = &row.account_id else { continue };
            match read_account_id(account_id) {
                Ok(account_id) => considered.push(Considered {
                    account_id,
                    choice,
                    headroom_minor: row.headroom_minor,
                    day_headroom_minor: row.day_headroom_minor,
                }),
                Err(error) => skip_unreadable("explain_acquire", pool_id, account_id, &error),
            }
        }
        Ok((counts, considered))
    }

    async fn explain_rows(
        &self,
        pool_id: &PoolId,
        selector: &Selector,
        expected_minor: Option<i64>,
        limit: i64,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Result<Vec<ConsideredRow>, StoreError> {
        Ok(sqlx::query_file_as!(
            ConsideredRow,
            "src/store/sql/explain_acquire.sql",
            pool_id.as_str(),
            selector.account_id.as_ref().map(AccountId::as_str),
            selector.plan_id.as_ref().map(PlanId::as_str),
            selector.country_code.as_deref(),
            selector.card_country.as_deref(),
            selector.min_headroom_minor,
            labels_json(&selector.labels),
            &selector.exclude.iter().map(AccountId::to_string).collect::<Vec<_>>(),
            expected_minor,
            limit,
            &self.quarantine.accounts(pool_id),
        )
        .fetch_all(&permit.map_or_else(|| self.rest.clone(), |permit| self.rest.under(permit)))
        .await?)
    }
}

/// What one statement for all requests came to.
struct Together {
    leased: HashMap<RequestId, Acquired>,
    /// False: a lease was given back, because its account cannot be read.
    is_all_read: bool,
}

impl Together {
    fn add(&mut self, more: Self) {
        self.leased.extend(more.leased);
        self.is_all_read &= more.is_all_read;
    }
}

/// Runs the statement, again after it met another one.
async fn run_again<F>(statement: impl FnMut() -> F) -> Result<Vec<AcquiredRow>, sqlx::Error>
where
    F: Future<Output = Result<Vec<AcquiredRow>, sqlx::Error>>,
{
    // The same request is being served by another server: next time its lease is seen. Or the plan was
    // deleted, and is not there next time.
    run_again_after_contention(Step::Acquire, statement, |error| {
        is_violation_of(error, "accounts_lease_request") || is_foreign_key_violation(error)
    })
    .await
}

fn read_lease_of(pool_id: &PoolId, row: &AcquiredRow) -> Result<(RequestId, Acquired), StoreError> {
    let request_id = RequestId::parse_any(&row.request_id)
        .map_err(|_| StoreError::Unreadable("accounts.lease_request_id"))?;
    let original_status = read_status(&row.resume_status)?;
    let account = row.account(pool_id)?;
    Ok((request_id, Acquired { fresh: row.fresh, original_status, account }))
}

/// Those who were not served.
fn missing(wanted: &[Wanted], found: &HashMap<RequestId, Acquired>) -> Vec<Wanted> {
    wanted.iter().filter(|one| !found.contains_key(&one.request_id)).cloned().collect()
}
