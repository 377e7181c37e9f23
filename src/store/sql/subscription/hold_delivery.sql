-- Keeps a delivery behind one of its account that is tried again. Answers whether it is held: then it is not to be sent. It is
-- also held where it is kept already. $1 pool_id, $2 subscription_id, $3 the claim: where it is not the server's any more
-- nothing is kept; $4 delivery_id, $5 redemption_id, $6 account_id.
WITH before AS (
    SELECT EXISTS (
        SELECT FROM deliveries o
        WHERE o.pool_id = $1
          AND o.subscription_id = $2
          AND o.account_id = $6
          AND o.dead_at IS NULL
          AND o.delivery_id <= $4
    ) AS is_held
),
kept AS (
    INSERT INTO deliveries AS d (
        pool_id, subscription_id, delivery_id, redemption_id, account_id, attempts, last_error, next_try_at
    )
    SELECT $1, s.subscription_id, $4, $5, $6, 0, '', now()
    FROM subscriptions s
    CROSS JOIN before b
    WHERE s.pool_id = $1 AND s.subscription_id = $2 AND s.claim = $3 AND b.is_held
    ON CONFLICT DO NOTHING
    RETURNING d.delivery_id
)
SELECT b.is_held AS "is_held!"
FROM before b
LEFT JOIN kept k ON k.delivery_id = $4
