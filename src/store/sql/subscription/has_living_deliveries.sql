-- Whether a subscription has deliveries that are tried again. $1 pool_id, $2 subscription_id.
SELECT EXISTS (
    SELECT FROM deliveries d WHERE d.pool_id = $1 AND d.subscription_id = $2 AND d.dead_at IS NULL
) AS "has_living!"
