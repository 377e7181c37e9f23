//! What an account is being filled for.

/// Whether a balance has reached a plan's target: the account is then `COMPLETED`. An account
/// without a plan has no target and is never complete.
pub fn is_reached(balance_minor: i64, target_minor: Option<i64>) -> bool {
    target_minor.is_some_and(|target| balance_minor >= target)
}
