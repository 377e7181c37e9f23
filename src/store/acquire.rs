//! Acquiring: leases on accounts that were chosen from the ready set.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::future::join_all;

use super::{
    Store, StoreError,
    apply::{Applied, Asked},
    lease::is_of_a_row,
    quarantine::Statement,
};
use crate::{
    domain::{
        account::{self, Account, AccountEvent, AccountStatus, Refusal, Resume},
        choice::Criteria,
        id::{Holder, PoolId},
        principal::{Principal, RequestKey},
        redemption::{BeginRefusal, Begun, CardToBegin},
    },
    failpoints::{Guard, holds},
};

/// A lease that is wanted.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The caller's name for the request, and who calls.
    pub request: RequestKey,
    /// Who asks.
    pub holder: Holder,
    /// How long the lease is to last.
    pub ttl: Duration,
    /// The redemption that is begun with the lease, in the same change, if one is.
    pub begins: Option<Arc<CardToBegin>>,
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

/// An account that was chosen for a request.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The request.
    pub wanted: Wanted,
    /// What it asks for.
    pub criteria: Arc<Criteria>,
    /// The account, as it is as far as is known.
    pub account: Account,
}

/// What became of claims.
#[derive(Debug, Default)]
pub struct Claimed {
    /// The leases of requests, those included that they had already.
    pub leased: HashMap<RequestKey, Acquired>,
    /// What became of the redemptions that were to be begun with their leases.
    pub begun: HashMap<RequestKey, Begun>,
    /// The pool gives out no leases now.
    pub closed: Option<Refusal>,
    /// Requests for which nothing could be done, and why.
    pub failed: HashMap<RequestKey, StoreError>,
}

impl Acquired {
    fn now(original_status: AccountStatus, account: Account) -> Self {
        Self { fresh: true, original_status, account }
    }

    /// Whose lease it is.
    pub fn principal(&self) -> Option<Principal> {
        self.account.lease.as_ref().map(|lease| lease.request.principal.clone())
    }

    /// A lease that its request has already.
    fn before(account: Account) -> Option<(RequestKey, Self)> {
        let request = account.lease.as_ref()?.request.clone();
        let original_status = account.resume.map(Resume::status)?;
        Some((request, Self { fresh: false, original_status, account }))
    }
}

impl Claim {
    fn event(&self) -> AccountEvent {
        let Self { wanted, criteria, .. } = self;
        AccountEvent::Acquire(account::Wanted {
            request: wanted.request.clone(),
            holder: wanted.holder.clone(),
            ttl: wanted.ttl,
            plan_id: criteria.selector.plan_id.clone(),
            expected_minor: criteria.expected_minor,
            min_headroom_minor: criteria.selector.min_headroom_minor,
            begins: wanted.begins.as_ref().map(|card| card.new.redemption_id),
        })
    }
}

/// What became of one claim.
enum Taken {
    Leased(Box<Acquired>),
    Begun(Begun),
    Closed(Refusal),
    /// Somebody else has the account.
    Lost,
}

impl Store {
    /// Leases accounts to the requests for which they were chosen. An account that cannot be written is left out from
    /// now on. What is lost is read, so that others are chosen next; a request that has a lease already gets that.
    ///
    /// May be repeated when it failed: the requests then have their leases already, or none.
    pub async fn claim(&self, pool_id: &PoolId, claims: Vec<Claim>) -> Result<Claimed, StoreError> {
        let answers = join_all(claims.iter().map(|claim| self.take(pool_id, claim))).await;
        let mut claimed = Claimed::default();
        let (mut lost, mut bad) = (Vec::new(), Vec::new());
        for (claim, answer) in claims.into_iter().zip(answers) {
            match answer {
                Ok(Taken::Leased(acquired)) => {
                    claimed.leased.insert(claim.wanted.request, *acquired);
                }
                Ok(Taken::Begun(begun)) => {
                    claimed.begun.insert(claim.wanted.request, begun);
                }
                Ok(Taken::Closed(refusal)) => claimed.closed = Some(refusal),
                Ok(Taken::Lost) => lost.push(claim),
                Err(error) if is_of_a_row(&error) => bad.push((claim, error)),
                Err(error) => drop(claimed.failed.insert(claim.wanted.request, error)),
            }
        }
        let is_of_all = claimed.leased.is_empty() && claimed.begun.is_empty() && bad.len() > 1;
        claimed.failed.extend(self.leave_out(pool_id, bad, is_of_all));
        if !lost.is_empty() {
            match self.read_lost(pool_id, &lost).await {
                Ok(leased) => claimed.leased.extend(leased),
                Err(error) => {
                    let requests = lost.into_iter().map(|claim| claim.wanted.request);
                    claimed.failed.extend(requests.map(|request| (request, error.clone())));
                }
            }
        }
        Ok(claimed)
    }

    async fn take(&self, pool_id: &PoolId, claim: &Claim) -> Result<Taken, StoreError> {
        let asked = Asked::about(claim.account.clone(), claim.event());
        let refusal = match &claim.wanted.begins {
            None => match self.apply.call(pool_id, asked).await? {
                Applied::Done(done) => {
                    let acquired = Acquired::now(claim.account.status, done.account);
                    return Ok(Taken::Leased(Box::new(acquired)));
                }
                Applied::Refused(refusal, _) => refusal,
                _ => return Ok(Taken::Lost),
            },
            Some(card) => match self.begin_claim(pool_id, asked, CardToBegin::clone(card)).await? {
                Begun::Refused(BeginRefusal::Account(refusal, _)) => refusal,
                Begun::Refused(BeginRefusal::TryAgain | BeginRefusal::NoAccount) => {
                    return Ok(Taken::Lost);
                }
                begun => return Ok(Taken::Begun(begun)),
            },
        };
        Ok(match refusal {
            Refusal::PoolPaused | Refusal::PoolDraining => Taken::Closed(refusal),
            _ => Taken::Lost,
        })
    }

    /// Reads what could not be leased. Answers with the leases that the requests have already.
    async fn read_lost(
        &self,
        pool_id: &PoolId,
        lost: &[Claim],
    ) -> Result<HashMap<RequestKey, Acquired>, StoreError> {
        let accounts: Vec<_> =
            lost.iter().map(|claim| claim.account.account_id.to_string()).collect();
        let requests = lost.iter().map(|claim| claim.wanted.request.clone());
        let requests: Vec<_> = requests.filter(|_| holds(Guard::LostRepliesAreFound)).collect();
        let ready = self.ready(pool_id);
        let leased = ready.read(&accounts, &requests).await?;
        let leased: HashMap<_, _> = leased.into_iter().filter_map(Acquired::before).collect();
        for claim in lost.iter().filter(|claim| !leased.contains_key(&claim.wanted.request)) {
            ready.note_lost(&claim.account);
        }
        Ok(leased)
    }

    /// The leases of these requests, as they are.
    pub async fn leases_of(
        &self,
        pool_id: &PoolId,
        requests: &[RequestKey],
    ) -> Result<HashMap<RequestKey, Acquired>, StoreError> {
        let leased = self.ready(pool_id).read(&[], requests).await?;
        Ok(leased.into_iter().filter_map(Acquired::before).collect())
    }

    /// Leaves accounts out that cannot be written, so that others are chosen instead. Answers with those who get
    /// nothing, where it is not the accounts.
    fn leave_out(
        &self,
        pool_id: &PoolId,
        bad: Vec<(Claim, StoreError)>,
        is_of_all: bool,
    ) -> HashMap<RequestKey, StoreError> {
        let mut is_any_left_out = false;
        for (claim, error) in &bad {
            let (acquire, id) = (Statement::Acquire, claim.account.account_id.as_str());
            is_any_left_out |= self.quarantine.leave_out(acquire, pool_id, id, error, is_of_all);
        }
        let failed = bad.into_iter().filter(|_| !is_any_left_out);
        failed.map(|(claim, error)| (claim.wanted.request, error)).collect()
    }
}
