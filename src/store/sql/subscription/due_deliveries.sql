-- Deliveries of a subscription that are due to be tried again: of each account the first, however late those behind it are.
-- $1 pool_id, $2 subscription_id, $3 how many at the most.
SELECT
    d.delivery_id, d.redemption_id, d.account_id, d.attempts, now() - d.tried_since AS "tried_for?"
FROM deliveries d
WHERE d.pool_id = $1
  AND d.subscription_id = $2
  AND d.dead_at IS NULL
  AND d.next_try_at <= now()
  AND NOT EXISTS (
      SELECT FROM deliveries o
      WHERE o.pool_id = $1
        AND o.subscription_id = $2
        AND o.account_id = d.account_id
        AND o.dead_at IS NULL
        AND o.delivery_id < d.delivery_id
  )
ORDER BY d.account_id, d.delivery_id
LIMIT $3
