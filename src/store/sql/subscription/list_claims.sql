-- What a server delivers, as far as it was not taken from it; and whether deliveries are due that were not taken before. Of no
-- pool: it is the server's. $1 the server's id.
SELECT
    s.pool_id,
    s.subscription_id,
    s.claim,
    EXISTS (
        SELECT FROM deliveries d
        WHERE d.pool_id = s.pool_id AND d.subscription_id = s.subscription_id AND d.dead_at IS NULL
    ) AS "has_living!"
FROM subscriptions s
WHERE s.claimed_by = $1
