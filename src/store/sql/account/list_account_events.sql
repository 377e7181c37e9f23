-- An account's events before version $3, newest first, at most $4.
SELECT
    e.version, e.happened_at, e.actor, e.principal, e.reason, e.from_status, e.to_status, e.fencing_token, e.redemption_id,
    e.balance_minor, e.lease_expires_at
FROM account_events e
WHERE e.pool_id = $1 AND e.account_id = $2 AND e.version < $3
ORDER BY e.version DESC
LIMIT $4
