-- Of no pool: keeps a subscription's secrets under another key. Those that were changed meanwhile stay as they are. No row
-- then. $1 pool_id, $2 subscription_id, $3 the secret and $4 the one before as they were stored, $5 and $6 as they are to be.
UPDATE subscriptions s
SET secret = $5, secret_before = $6
WHERE s.pool_id = $1
  AND s.subscription_id = $2
  AND s.secret = $3
  AND s.secret_before IS NOT DISTINCT FROM $4
RETURNING s.subscription_id
