-- An account's events before version $3, newest first, at most $4.
SELECT
    e.version AS "version!",
    e.happened_at AS "happened_at!",
    e.actor AS "actor!",
    e.reason AS "reason!",
    e.from_status AS "from_status?",
    e.to_status AS "to_status!",
    e.fencing_token AS "fencing_token!",
    e.redemption_id AS "redemption_id?",
    e.balance_minor AS "balance_minor!",
    e.lease_expires_at AS "lease_expires_at?"
FROM account_events e
WHERE e.pool_id = $1 AND e.account_id = $2 AND e.version < $3
ORDER BY e.version DESC
LIMIT $4
