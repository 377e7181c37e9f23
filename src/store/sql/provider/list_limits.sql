-- Of no pool: what holds back the calls to each provider now.
-- $1 how many at the most. Times that have passed are no time.
SELECT
    l.provider_id,
    l.failing,
    l.failed_tries,
    greatest(l.retry_at, now()) - now() AS "retry_in!",
    greatest(l.held_until, now()) - now() AS "held_for!"
FROM provider_limits l
ORDER BY l.provider_id
LIMIT $1
