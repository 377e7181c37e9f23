-- Deliveries of a subscription that were not taken, after $3, at most $5. $1 pool_id, $2 subscription_id, $4 whether those that
-- were given up, or those that were not; null: both.
SELECT
    d.delivery_id, d.redemption_id, d.account_id, d.attempts, d.last_error, d.created_at, d.last_try_at, d.next_try_at,
    d.dead_at
FROM deliveries d
WHERE d.pool_id = $1
  AND d.subscription_id = $2
  AND d.delivery_id > $3
  AND ($4::boolean IS NULL OR (d.dead_at IS NOT NULL) = $4)
ORDER BY d.delivery_id
LIMIT $5
