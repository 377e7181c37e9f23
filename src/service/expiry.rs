//! Expired leases: how each that was ended is logged and counted.

use crate::domain::account::Account;

/// Logs and counts a lease whose time has passed. `account` is as it is after that.
pub(super) fn log_expired(account: &Account) {
    metrics::counter!("holdfast_leases_expired_total").increment(1);
    tracing::warn!(
        pool_id = %account.pool_id,
        account_id = %account.account_id,
        fencing_token = account.token.0,
        status = account.status.as_str(),
        "expired: the lease's time passed, and the account has the status it had before"
    );
}
