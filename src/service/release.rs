//! `ReleaseAccount` and `RenewLease`: what a holder does with a lease.

use std::time::Duration;

use super::{
    error::{Error, OPERATOR, OWN_LEASE},
    pools::{Pools, lease_duration},
};
use crate::{
    domain::{
        account::{Account, LeaseAnswer},
        lease::{LeaseLoss, LeaseRef},
        principal::{Authority, Principal},
    },
    store::Store,
};

/// The holder's side of leases. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Leases {
    store: Store,
    pools: Pools,
}

impl Leases {
    /// Leases of a store.
    pub fn new(store: Store, pools: Pools) -> Self {
        Self { store, pools }
    }

    /// Makes a lease end later.
    pub async fn renew(
        &self,
        lease: LeaseRef,
        ttl: Option<Duration>,
        by: Principal,
    ) -> Result<Account, Error> {
        let pool = self.pools.settings(&lease.pool_id).await?;
        let ttl = lease_duration(&pool, ttl)?;
        match self.store.renew(&lease, ttl, by).await? {
            LeaseAnswer::Done(account) => Ok(account),
            LeaseAnswer::Lost(loss, _) => Err(Error::LeaseLost { lease, loss }),
            LeaseAnswer::OtherPrincipal => Err(Error::OthersLease { lease, needs: OWN_LEASE }),
            LeaseAnswer::NoAccount => Err(Error::AccountNotFound(lease.pool_id, lease.account_id)),
            LeaseAnswer::NoPool => Err(Error::PoolNotFound(lease.pool_id)),
        }
    }

    /// Ends a lease, or notes the request while a redemption is open. Releasing twice is fine. It is done even
    /// when the caller goes away meanwhile: nobody else would.
    pub async fn release(&self, lease: LeaseRef, by: Authority) -> Result<Account, Error> {
        let this = self.clone();
        let work = tokio::spawn(async move { this.end(lease, by).await });
        work.await.unwrap_or(Err(Error::Internal("the release's task ended early")))
    }

    async fn end(&self, lease: LeaseRef, by: Authority) -> Result<Account, Error> {
        self.pools.settings(&lease.pool_id).await?;
        match self.store.release(&lease, by).await? {
            LeaseAnswer::Done(account) => {
                tracing::debug!(
                    pool_id = %lease.pool_id,
                    account_id = %lease.account_id,
                    fencing_token = lease.token.0,
                    status = account.status.as_str(),
                    waits_for_redemption_id = account.open_redemption_id.map(|id| id.to_string()),
                    "released"
                );
                Ok(account)
            }
            LeaseAnswer::Lost(LeaseLoss::Released, account) => Ok(account),
            LeaseAnswer::Lost(loss, _) => Err(Error::LeaseLost { lease, loss }),
            LeaseAnswer::OtherPrincipal => Err(Error::OthersLease { lease, needs: OPERATOR }),
            LeaseAnswer::NoAccount => Err(Error::AccountNotFound(lease.pool_id, lease.account_id)),
            LeaseAnswer::NoPool => Err(Error::PoolNotFound(lease.pool_id)),
        }
    }
}
