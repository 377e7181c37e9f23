-- Lets deliveries be tried now, dead letters among them, and records who did. Answers how many. One that is being tried at
-- this moment is tried once more, or is gone.
-- $1 pool_id, $2 subscription_id, $3 which; null: all dead letters; $4 who does it, $5 from where.
WITH retried AS (
    UPDATE deliveries d
    SET dead_at = NULL, tried_since = NULL, next_try_at = now()
    WHERE d.pool_id = $1
      AND d.subscription_id = $2
      AND (d.delivery_id = ANY ($3::text[]) OR ($3::text[] IS NULL AND d.dead_at IS NOT NULL))
    RETURNING d.delivery_id
),
counted AS (
    SELECT count(*) AS retried FROM retried
),
audited AS (
    INSERT INTO audit_events (pool_id, principal, peer, action, subject, after)
    SELECT $1, $4, $5, 'RetryDeliveries', $2, jsonb_build_object('retried', c.retried)
    FROM counted c
    WHERE c.retried > 0
    RETURNING after
)
SELECT c.retried AS "retried!", a.after AS "after?"
FROM counted c
LEFT JOIN audited a ON a.after IS NOT NULL
