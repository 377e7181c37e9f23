//! The journal of what callers were told: none of it may be undone, whatever crashes.

use std::sync::{Arc, Mutex, PoisonError};

use holdfast::rpc::pb;

/// What the clients of one test were told. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Journal(Arc<Mutex<Vec<Told>>>);

/// One thing that a caller was told.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    /// It holds this lease.
    Leased { pool_id: String, account_id: String, token: i64 },
    /// This lease has ended.
    Released { pool_id: String, account_id: String, token: i64 },
    /// This is the outcome.
    Settled { redemption_id: String, state: &'static str, amount_minor: i64 },
}

impl Journal {
    pub(crate) fn leased(&self, lease: &pb::LeaseRef) {
        self.add(Told::Leased {
            pool_id: lease.pool_id.clone(),
            account_id: lease.account_id.clone(),
            token: lease.fencing_token,
        });
    }

    /// An account that is still locked was only asked for.
    pub(crate) fn released(&self, lease: &pb::LeaseRef, account: &pb::Account) {
        if account.status() != pb::AccountStatus::Locking {
            self.add(Told::Released {
                pool_id: lease.pool_id.clone(),
                account_id: lease.account_id.clone(),
                token: lease.fencing_token,
            });
        }
    }

    pub(crate) fn redemption(&self, redemption: &pb::Redemption) {
        let state = match redemption.state() {
            pb::RedemptionState::Succeeded => "SUCCEEDED",
            pb::RedemptionState::Failed => "FAILED",
            _ => return,
        };
        self.add(Told::Settled {
            redemption_id: redemption.redemption_id.clone(),
            state,
            amount_minor: redemption.amount.as_ref().map_or(0, |amount| amount.amount_minor),
        });
    }

    pub(crate) fn entries(&self) -> Vec<Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add(&self, told: Told) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(told);
    }
}
