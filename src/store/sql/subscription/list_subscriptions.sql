-- A pool's subscriptions after $2, at most $3.
SELECT
    s.subscription_id, s.url, s.allow_plain, s.states, s.paused, s.created_by, s.created_at, s.updated_at,
    s.secret_before_end, s.failing_since, s.next_try_at, s.last_error
FROM subscriptions s
WHERE s.pool_id = $1 AND s.subscription_id > $2
ORDER BY s.subscription_id
LIMIT $3
