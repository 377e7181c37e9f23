-- Of no pool: what holds back the calls to each provider now.
-- $1 how many at the most.
SELECT
    l.provider_id,
    l.failing,
    l.failed_tries,
    CASE WHEN l.retry_at > now() THEN l.retry_at - now() END AS retry_in,
    CASE WHEN l.held_until > now() THEN l.held_until - now() END AS held_for
FROM provider_limits l
ORDER BY l.provider_id
LIMIT $1
