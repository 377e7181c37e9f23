-- Subscriptions that nobody delivers: never claimed, left, or claimed by a server whose beat has stopped. Of no pool: a server
-- does not know which pools have some. $1 for how long a server that lives may not have beaten, $2 how many at the most.
SELECT s.pool_id, s.subscription_id, s.claim
FROM subscriptions s
WHERE NOT s.paused
  AND NOT EXISTS (
      SELECT FROM servers v WHERE v.server_id = s.claimed_by AND v.beat_at > now() - $1::interval
  )
ORDER BY s.claim, s.pool_id, s.subscription_id
LIMIT $2
