-- Notes that a delivery was tried again and not taken. No row: it is gone, or the claim is not the server's any more.
-- $1 pool_id, $2 subscription_id, $3 the claim, $4 delivery_id, $5 what was wrong; $6 until the next try, or else $7 until it is given
-- up: nothing.
UPDATE deliveries d
SET attempts = d.attempts + 1,
    last_error = $5,
    tried_since = least(d.tried_since, now()),
    last_try_at = now(),
    next_try_at = now() + $6::interval,
    dead_at = now() + $7::interval
FROM subscriptions s
WHERE s.pool_id = $1
  AND s.subscription_id = $2
  AND s.claim = $3
  AND d.pool_id = $1
  AND d.subscription_id = $2
  AND d.delivery_id = $4
RETURNING d.delivery_id
