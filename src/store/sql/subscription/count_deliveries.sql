-- How many deliveries of a subscription were not taken. $1 pool_id, $2 subscription_id.
SELECT
    count(*) FILTER (WHERE d.dead_at IS NULL) AS "retrying!",
    count(*) FILTER (WHERE d.dead_at IS NOT NULL) AS "dead!"
FROM deliveries d
WHERE d.pool_id = $1 AND d.subscription_id = $2
