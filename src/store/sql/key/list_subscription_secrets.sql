-- Of no pool: subscriptions whose secrets were encrypted with another key than the current one, by their ids.
-- $1 pool_id and $2 subscription_id after which to go on, $3 the current key, $4 how many at the most.
SELECT s.pool_id, s.subscription_id, s.secret, s.secret_before
FROM subscriptions s
WHERE (s.pool_id, s.subscription_id) > ($1, $2)
  AND (key_of(s.secret) IS DISTINCT FROM $3::int OR key_of(s.secret_before) <> $3::int)
ORDER BY s.pool_id, s.subscription_id
LIMIT $4
