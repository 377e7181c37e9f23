//! Acquiring: which account for whom, and why none.
//!
//! A statement chooses accounts, which changes nothing; each is then claimed where it is still as it was.

mod assign;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tokio::sync::OwnedSemaphorePermit;

use self::assign::{Claim, assign};
use super::{
    Store, StoreError,
    account::{account_row, labels_json, read_account_id, read_status, skip_unreadable},
    apply::{Applied, Asked},
    lease::is_of_a_row,
    quarantine::{Done, Rows, Statement},
    scan::{Columns, Freed, ScanCursors},
};
pub use crate::domain::selector::Selector;
use crate::domain::{
    account::{Account, AccountEvent, AccountStatus, Resume},
    choice::Choice,
    id::{AccountId, Holder, PlanId, PoolId, RequestId},
};

/// How many accounts are chosen beyond as many as are wanted. That is for a try after one in which claims were
/// lost, or too few accounts were found. Other servers are choosing the others just now.
const SPARE: usize = 256;

/// How often those who wait are tried, each time without the accounts that could not be written or read before.
const MAX_ROUNDS: usize = 4;

/// A lease that is wanted.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The caller's name for the request.
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

account_row!(ChosenRow {
    group_number: i32,
    scan_plan_key: Option<String>,
    scan_first: Option<i64>
});

struct PromotedRow {
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
    /// Leases free accounts that `selector` allows to the requests. Each, in their order, gets the first in
    /// the order of the choice, whose plan wants what it expects. A request that has a lease already gets
    /// that; one that is not in the answer found nothing. No two of `wanted` may have the same
    /// `request_id`. `cursors` are those of earlier calls with the same criteria, or none. An account that cannot be
    /// written is left out, and the next best is taken.
    ///
    /// May be repeated when it failed: the requests then have their leases already, or none.
    pub async fn acquire(
        &self,
        pool_id: &PoolId,
        selector: &Selector,
        wanted: &[Wanted],
        cursors: &mut ScanCursors,
    ) -> Result<HashMap<RequestId, Acquired>, StoreError> {
        let mut found = HashMap::new();
        // Most expect the same, and are served by a scan alone.
        let is_same = wanted.windows(2).all(|two| two[0].expected_minor == two[1].expected_minor);
        let mut may_scan = is_same && selector.account_id.is_none();
        let mut spare = 0;
        for round in 0..MAX_ROUNDS {
            let rest = missing(wanted, &found);
            if rest.is_empty() {
                break;
            }
            let tried = if may_scan {
                self.scan(pool_id, selector, &rest, spare, cursors).await
            } else {
                self.search(pool_id, selector, &rest, spare, cursors).await
            };
            let tried = match tried {
                Ok(tried) => tried,
                Err(error) if found.is_empty() => return Err(error),
                // Those who have their lease hear of it; the others are tried again.
                Err(error) => {
                    tracing::warn!(%pool_id, %error, "some could not be tried once more");
                    break;
                }
            };
            let is_any_missed = tried.is_any_missed;
            found.extend(tried.leased);
            if let Some(error) = tried.error {
                if found.is_empty() {
                    return Err(error);
                }
                break;
            }
            match (is_any_missed, may_scan) {
                // Some of what was chosen was taken by others: there may be more.
                (true, _) => spare = SPARE,
                (false, true) if cursors.may_search() => (may_scan, spare) = (false, 0),
                (false, false) if round == 0 && spare == 0 => spare = SPARE,
                (false, _) => break,
            }
        }
        Ok(found)
    }

    /// Serves those who expect the same, by a scan from where earlier ones ended.
    async fn scan(
        &self,
        pool_id: &PoolId,
        selector: &Selector,
        wanted: &[Wanted],
        spare: usize,
        cursors: &mut ScanCursors,
    ) -> Result<Tried, StoreError> {
        let from = cursors.begin();
        let begun = Instant::now();
        let rows = self.scan_rows(pool_id, selector, wanted, wanted.len() + spare, &from).await?;
        let lasting = begun.elapsed();
        let tried = self.claim(pool_id, selector, wanted, &rows, spare > 0).await;
        let mut taken = Vec::with_capacity(rows.len());
        // Of accounts that were taken at random others stand before, which nobody took.
        let is_in_order = |_: &&ChosenRow| spare == 0;
        let is_taken = |row: &&ChosenRow| tried.accounts.contains(row.account_id.as_str());
        for row in rows.iter().filter(is_in_order).filter(is_taken) {
            if let (Some(plan_key), Some(first)) = (&row.scan_plan_key, row.scan_first)
                && let Ok(status) = read_status(&row.status)
            {
                taken.push(Freed::standing(plan_key, status, row.plan_day, -first, row.idle_since));
            }
        }
        cursors.note_scan(lasting, taken);
        Ok(tried)
    }

    async fn scan_rows(
        &self,
        pool_id: &PoolId,
        selector: &Selector,
        wanted: &[Wanted],
        most: usize,
        from: &Columns,
    ) -> Result<Vec<ChosenRow>, sqlx::Error> {
        sqlx::query_file_as!(
            ChosenRow,
            "src/store/sql/choose.sql",
            pool_id.as_str(),
            &wanted.iter().map(|w| w.request_id.to_string()).collect::<Vec<_>>(),
            wanted.first().and_then(|w| w.expected_minor),
            i64::try_from(most).unwrap_or(i64::MAX),
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

    /// Serves those who expect different amounts, or for whom a scan found nothing.
    async fn search(
        &self,
        pool_id: &PoolId,
        selector: &Selector,
        wanted: &[Wanted],
        spare: usize,
        cursors: &mut ScanCursors,
    ) -> Result<Tried, StoreError> {
        let begun = Instant::now();
        let most = wanted.len() + spare;
        let rows = sqlx::query_file_as!(
            ChosenRow,
            "src/store/sql/choose_any.sql",
            pool_id.as_str(),
            &wanted.iter().map(|w| w.request_id.to_string()).collect::<Vec<_>>(),
            &assign::amounts(wanted) as &[Option<i64>],
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
        .await?;
        cursors.searched(begun.elapsed());
        Ok(self.claim(pool_id, selector, wanted, &rows, spare > 0).await)
    }

    /// Claims what was chosen: each request, in their order, the first account that fits it.
    async fn claim(
        &self,
        pool_id: &PoolId,
        selector: &Selector,
        wanted: &[Wanted],
        rows: &[ChosenRow],
        is_contended: bool,
    ) -> Tried {
        let mut tried = Tried::default();
        let mut held = HashSet::new();
        let mut candidates: Vec<(i32, Account)> = Vec::with_capacity(rows.len());
        for row in rows {
            match row.account(pool_id) {
                Ok(account) if row.group_number == 0 && row.lease_request_id.is_some() => {
                    if let Some(acquired) = Acquired::before(account) {
                        held.insert(acquired.0.clone());
                        tried.leased.insert(acquired.0, acquired.1);
                    }
                }
                Ok(account) => candidates.push((row.group_number, account)),
                Err(error) => {
                    let (acquire, id) = (Statement::Acquire, &row.account_id);
                    self.quarantine.leave_out(acquire, pool_id, id, &error, false);
                    tried.is_any_missed = true;
                }
            }
        }
        let waiting: Vec<_> = wanted.iter().filter(|w| !held.contains(&w.request_id)).collect();
        let claims = assign(&waiting, &assign::amounts(wanted), candidates, is_contended);
        let asked = claims.iter().map(|Claim { wanted, account }| {
            let wanted = crate::domain::account::Wanted {
                request_id: wanted.request_id.clone(),
                holder: wanted.holder.clone(),
                ttl: wanted.ttl,
                plan_id: selector.plan_id.clone(),
                expected_minor: wanted.expected_minor,
                min_headroom_minor: selector.min_headroom_minor,
            };
            Asked::about(account.clone(), AccountEvent::Acquire(wanted))
        });
        let answers = join_all(asked.map(|asked| self.apply.call(pool_id, asked))).await;
        let mut bad = Vec::new();
        for (Claim { wanted, account }, answer) in claims.into_iter().zip(answers) {
            match answer {
                Ok(Applied::Done(done)) => {
                    tried.accounts.insert(account.account_id.to_string());
                    let acquired = Acquired::now(account.status, done.account);
                    tried.leased.insert(wanted.request_id.clone(), acquired);
                }
                Ok(_) | Err(StoreError::RequestHasLease) => tried.is_any_missed = true,
                Err(error) if is_of_a_row(&error) => bad.push((account.account_id, error)),
                Err(error) => tried.error = Some(error),
            }
        }
        self.leave_out(pool_id, &mut tried, bad);
        tried
    }

    /// Leaves accounts out that cannot be written, and lets others be chosen instead.
    fn leave_out(&self, pool_id: &PoolId, tried: &mut Tried, bad: Vec<(AccountId, StoreError)>) {
        let is_of_all = tried.accounts.is_empty() && bad.len() > 1;
        let mut is_any_left_out = false;
        for (account_id, error) in &bad {
            let (acquire, id) = (Statement::Acquire, account_id.as_str());
            is_any_left_out |= self.quarantine.leave_out(acquire, pool_id, id, error, is_of_all);
        }
        tried.is_any_missed |= is_any_left_out;
        if let (false, Some((_, error))) = (is_any_left_out, bad.into_iter().next()) {
            tried.error = Some(error);
        }
    }

    /// The accounts that are not wanted, and those that cannot be written.
    fn excluded(&self, pool_id: &PoolId, selector: &Selector) -> Vec<String> {
        let mut excluded = self.quarantine.left_out(Statement::Acquire, pool_id);
        excluded.extend(selector.exclude.iter().map(AccountId::to_string));
        excluded
    }

    /// Puts accounts whose time has come, at most `limit`, where acquire finds them in order. Answers
    /// with where they stand there. One that cannot be written is left out, and does not hold up the others.
    pub async fn promote(&self, pool_id: &PoolId, limit: usize) -> Result<Done<Freed>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let promote = |rows: Rows| async move {
            let promote = sqlx::query_file_as!(
                PromotedRow,
                "src/store/sql/promote.sql",
                pool_id.as_str(),
                limit,
                &rows.ids,
                rows.only,
            );
            promote.fetch_all(&self.db).await
        };
        let list = |limit: i64| {
            sqlx::query_file_scalar!("src/store/sql/list_due_accounts.sql", pool_id.as_str(), limit)
                .fetch_all(&self.db)
        };
        let promoted =
            self.quarantine.run(Statement::Promote, pool_id, limit, promote, list).await?;
        let freed = |row: &PromotedRow| {
            let status = read_status(&row.status).ok()?;
            let plan_key = row.plan_id.as_deref().unwrap_or_default();
            let (day, balance, since) = (row.plan_day, row.balance_minor, row.idle_since);
            Some(Freed::standing(plan_key, status, day, balance, since))
        };
        let rows = promoted.rows.iter().filter_map(freed).collect();
        Ok(Done { rows, may_be_more: promoted.may_be_more })
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

    /// What an acquisition would make of the pool's accounts now: how many there are of each choice, and the first
    /// `limit` of them. Those that would be picked come first, in their order. Reads every account of the pool:
    /// `permit` is given back when that has ended, also when nobody waits for it.
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

/// What became of one try for all requests.
#[derive(Default)]
struct Tried {
    leased: HashMap<RequestId, Acquired>,
    /// The accounts that were leased now.
    accounts: HashSet<String>,
    /// Some of what was chosen could not be had: others may be.
    is_any_missed: bool,
    /// Why some were not tried.
    error: Option<StoreError>,
}

impl Acquired {
    fn now(original_status: AccountStatus, account: Account) -> Self {
        Self { fresh: true, original_status, account }
    }

    /// A lease that its request has already.
    fn before(account: Account) -> Option<(RequestId, Self)> {
        let request_id = account.lease.as_ref()?.request_id.clone();
        let original_status = account.resume.map(Resume::status)?;
        Some((request_id, Self { fresh: false, original_status, account }))
    }
}

/// Those who were not served.
fn missing(wanted: &[Wanted], found: &HashMap<RequestId, Acquired>) -> Vec<Wanted> {
    wanted.iter().filter(|one| !found.contains_key(&one.request_id)).cloned().collect()
}
