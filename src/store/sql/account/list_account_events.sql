-- An account's events before version $3, newest first, at most $4; from $5 to before $6, of a reason ($7), of a redemption
-- ($8), by one actor ($9), where they are not null. Those of the account alone are read.
SELECT
    e.version, e.happened_at, e.actor, e.principal, e.reason, e.from_status, e.to_status, e.fencing_token, e.redemption_id,
    e.balance_minor, e.lease_expires_at
FROM account_events e
WHERE e.pool_id = $1
  AND e.account_id = $2
  AND e.version < $3
  AND ($5::timestamptz IS NULL OR e.happened_at >= $5)
  AND ($6::timestamptz IS NULL OR e.happened_at < $6)
  AND ($7::text IS NULL OR e.reason = $7)
  AND ($8::uuid IS NULL OR e.redemption_id = $8)
  AND ($9::text IS NULL OR e.actor = $9)
ORDER BY e.version DESC
LIMIT $4
