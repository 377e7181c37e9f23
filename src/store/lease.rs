//! Leases: acquiring, renewing, releasing, and ending those whose time has passed.

use std::{collections::HashMap, time::Duration};

use super::{
    Store, StoreError,
    account::{Account, AccountRow, Labels, account_row, labels_json},
    db::Db,
    error::is_unique_violation,
    interval,
    lane::{Batch, at_points, run_again_after_contention},
};
use crate::{
    domain::{
        account::AccountStatus,
        id::{AccountId, FencingToken, Holder, PlanId, PoolId, RequestId},
        lease::{LeaseLoss, LeaseRef},
    },
    injection::Step,
};

/// Which accounts may be picked. What is `None` or empty does not narrow the choice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selector {
    /// Only this account.
    pub account_id: Option<AccountId>,
    /// Accounts of this plan first, then ones without a plan.
    pub plan_id: Option<PlanId>,
    /// Only accounts of this country.
    pub country_code: Option<String>,
    /// The country of the card: only accounts of that country, or of no known one.
    pub card_country: Option<String>,
    /// Only accounts whose plan still wants this much, in minor units.
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

/// Why no account was to be had: how many accounts were passed over, each under its first cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unavailable {
    /// Under somebody's lease.
    pub locked: i64,
    /// Full.
    pub completed: i64,
    /// Not let in by the provider, or set aside.
    pub inactive: i64,
    /// Their plan wants nothing more, or less than the asked headroom.
    pub too_full: i64,
    /// Not what the selector asks for.
    pub not_selected: i64,
    /// Free by now.
    pub free: i64,
}

/// Whether what an acquisition names is there at all.
#[derive(Clone, Copy, Debug)]
pub struct SelectorCheck {
    /// The pool.
    pub pool_exists: bool,
    /// The pool begins nothing new.
    pub pool_paused: bool,
    /// The plan that the selector names, if it names one.
    pub plan_exists: bool,
    /// The account that the selector names, if it names one.
    pub account_exists: bool,
}

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

/// Which accounts are picked when a plan is named.
#[derive(Clone, Copy, Debug)]
enum Binding {
    /// Those that are of the plan.
    Own,
    /// Those of no plan, which the lease binds to it.
    New,
}

account_row!(AcquiredRow { request_id: String, fresh: bool, resume_status: String });
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
    /// Leases free accounts that `selector` allows to the requests, in their order. A request that
    /// has a lease already gets that; one that is not in the answer found nothing free. No two of
    /// `wanted` may have the same `request_id`.
    ///
    /// May be repeated when the reply was lost: the requests then have their leases already.
    pub async fn acquire(
        &self,
        pool_id: &PoolId,
        selector: &Selector,
        wanted: &[Wanted],
    ) -> Result<HashMap<RequestId, Acquired>, StoreError> {
        let mut found = self.acquire_from(pool_id, selector, wanted, Binding::Own).await?;
        if selector.plan_id.is_some() && found.len() < wanted.len() {
            let rest: Vec<_> = wanted
                .iter()
                .filter(|wanted| !found.contains_key(&wanted.request_id))
                .cloned()
                .collect();
            found.extend(self.acquire_from(pool_id, selector, &rest, Binding::New).await?);
        }
        Ok(found)
    }

    async fn acquire_from(
        &self,
        pool_id: &PoolId,
        selector: &Selector,
        wanted: &[Wanted],
        binding: Binding,
    ) -> Result<HashMap<RequestId, Acquired>, StoreError> {
        // A unique violation: the same request is being served by another server. Next time its
        // lease is seen.
        let rows = run_again_after_contention(
            Step::Acquire,
            || self.acquire_rows(pool_id, selector, wanted, binding),
            is_unique_violation,
        )
        .await?;
        rows.iter()
            .map(|row| {
                let request_id = RequestId::parse_any(&row.request_id)
                    .map_err(|_| StoreError::Unreadable("accounts.lease_request_id"))?;
                let original_status = AccountStatus::parse(&row.resume_status)
                    .ok_or(StoreError::Unreadable("accounts.resume_status"))?;
                let account = row.account(pool_id)?;
                Ok((request_id, Acquired { fresh: row.fresh, original_status, account }))
            })
            .collect()
    }

    async fn acquire_rows(
        &self,
        pool_id: &PoolId,
        selector: &Selector,
        wanted: &[Wanted],
        binding: Binding,
    ) -> Result<Vec<AcquiredRow>, sqlx::Error> {
        let requests: Vec<_> = wanted.iter().map(|w| w.request_id.to_string()).collect();
        let holders: Vec<_> = wanted.iter().map(|w| w.holder.to_string()).collect();
        let ttls: Vec<_> = wanted.iter().map(|w| interval(w.ttl)).collect();
        let count = i64::try_from(wanted.len()).unwrap_or(i64::MAX);
        if *selector == Selector::default() {
            return sqlx::query_file_as!(
                AcquiredRow,
                "src/store/sql/acquire.sql",
                pool_id.as_str(),
                &requests,
                &holders,
                &ttls,
                count,
            )
            .fetch_all(&self.db)
            .await;
        }
        let exclude: Vec<_> = selector.exclude.iter().map(AccountId::to_string).collect();
        let plan_id = selector.plan_id.as_ref().map(PlanId::as_str);
        let (own_plan, new_plan) = match binding {
            Binding::Own => (plan_id, None),
            Binding::New => (None, plan_id),
        };
        sqlx::query_file_as!(
            AcquiredRow,
            "src/store/sql/acquire_matching.sql",
            pool_id.as_str(),
            &requests,
            &holders,
            &ttls,
            count,
            selector.account_id.as_ref().map(AccountId::as_str),
            own_plan,
            selector.country_code.as_deref(),
            selector.min_headroom_minor,
            labels_json(&selector.labels),
            &exclude,
            new_plan,
            selector.card_country.as_deref(),
        )
        .fetch_all(&self.db)
        .await
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

    /// Why no account was to be had. Reads every account of the pool.
    pub async fn explain_acquire(
        &self,
        pool_id: &PoolId,
        selector: &Selector,
    ) -> Result<Unavailable, StoreError> {
        let exclude: Vec<_> = selector.exclude.iter().map(AccountId::to_string).collect();
        Ok(sqlx::query_file_as!(
            Unavailable,
            "src/store/sql/explain_acquire.sql",
            pool_id.as_str(),
            selector.account_id.as_ref().map(AccountId::as_str),
            selector.plan_id.as_ref().map(PlanId::as_str),
            selector.country_code.as_deref(),
            selector.min_headroom_minor,
            labels_json(&selector.labels),
            &exclude,
            selector.card_country.as_deref(),
        )
        .fetch_one(&self.db)
        .await?)
    }

    /// Makes a lease end `ttl` from now.
    pub async fn renew(&self, lease: &LeaseRef, ttl: Duration) -> Result<LeaseAnswer, StoreError> {
        self.renew.call(&lease.pool_id, (lease.clone(), ttl)).await
    }

    /// Ends a lease, or notes the wish while a redemption is open.
    pub async fn release(&self, lease: &LeaseRef) -> Result<LeaseAnswer, StoreError> {
        self.release.call(&lease.pool_id, lease.clone()).await
    }

    /// Ends the leases of a pool whose time has passed, at most `limit`. `actor` is who looks.
    pub async fn expire(
        &self,
        pool_id: &PoolId,
        limit: i64,
        actor: &str,
    ) -> Result<Vec<Account>, StoreError> {
        let expire = sqlx::query_file_as!(
            AccountRow,
            "src/store/sql/expire.sql",
            pool_id.as_str(),
            limit,
            actor,
        );
        at_points(Step::Expire, expire.fetch_all(&self.db))
            .await?
            .iter()
            .map(|row| row.account(pool_id))
            .collect()
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
        let ids: Vec<_> = inputs.iter().map(|(lease, _)| lease.account_id.to_string()).collect();
        let tokens: Vec<_> = inputs.iter().map(|(lease, _)| lease.token.0).collect();
        let ttls: Vec<_> = inputs.iter().map(|(_, ttl)| interval(*ttl)).collect();
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
        answer(&self.db, pool_id, &leases, rows).await
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
        let ids: Vec<_> = inputs.iter().map(|lease| lease.account_id.to_string()).collect();
        let tokens: Vec<_> = inputs.iter().map(|lease| lease.token.0).collect();
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
        answer(&self.db, pool_id, &leases, rows).await
    }
}

/// An answer for each lease: the row that was changed, or why there is none.
async fn answer(
    db: &Db,
    pool_id: &PoolId,
    leases: &[&LeaseRef],
    changed: Vec<AccountRow>,
) -> Result<Vec<LeaseAnswer>, sqlx::Error> {
    let changed: HashMap<_, _> =
        changed.into_iter().map(|row| ((row.account_id.clone(), row.fencing_token), row)).collect();
    let key = |lease: &LeaseRef| (lease.account_id.to_string(), lease.token.0);
    let missed: Vec<_> = leases
        .iter()
        .filter(|lease| !changed.contains_key(&key(lease)))
        .map(|lease| key(lease))
        .collect();
    let explained = if missed.is_empty() {
        HashMap::new()
    } else {
        explain_leases(db, pool_id, missed).await?
    };
    Ok(leases
        .iter()
        .map(|lease| match changed.get(&key(lease)) {
            Some(row) => {
                row.account(pool_id).map_or_else(LeaseAnswer::Unreadable, LeaseAnswer::Done)
            }
            None => {
                explained.get(&key(lease)).map_or(LeaseAnswer::NoAccount, |row| {
                    match row.account(pool_id) {
                        // Nothing in its way now, and yet it was not done: between the two statements
                        // the account came back to this very lease, which no history does.
                        Ok(account) => LeaseAnswer::Lost(
                            row.loss(lease.token).unwrap_or(LeaseLoss::TakenOver),
                            account,
                        ),
                        Err(error) => LeaseAnswer::Unreadable(error),
                    }
                })
            }
        })
        .collect())
}

async fn explain_leases(
    db: &Db,
    pool_id: &PoolId,
    leases: Vec<(String, i64)>,
) -> Result<HashMap<(String, i64), LeaseRow>, sqlx::Error> {
    let (account_ids, tokens): (Vec<_>, Vec<_>) = leases.into_iter().unzip();
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
