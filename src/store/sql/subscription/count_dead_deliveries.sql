-- How many dead letters the subscriptions have that a server delivers, counted up to $2. Of no pool: it is the server's.
-- $1 the server's id.
SELECT count(*) AS "count!"
FROM (
    SELECT d.delivery_id
    FROM subscriptions s
    JOIN deliveries d ON d.pool_id = s.pool_id AND d.subscription_id = s.subscription_id
    WHERE s.claimed_by = $1 AND d.dead_at IS NOT NULL
    LIMIT $2
) c
