-- Of no pool: how many redemptions of a page have a fingerprint by each key, and where the page ends.
-- $1 pool_id and $2 redemption_id after which to go on, $3 how many at the most.
WITH page AS MATERIALIZED (
    SELECT r.pool_id, r.redemption_id, r.code_fingerprint_key
    FROM redemptions r
    WHERE (r.pool_id, r.redemption_id) > ($1, $2)
    ORDER BY r.pool_id, r.redemption_id
    LIMIT $3
),
last AS (
    SELECT p.pool_id, p.redemption_id FROM page p ORDER BY p.pool_id DESC, p.redemption_id DESC LIMIT 1
)
SELECT
    p.code_fingerprint_key AS "key_id!",
    count(*) AS "count!",
    (SELECT l.pool_id FROM last l) AS "last_pool_id!",
    (SELECT l.redemption_id FROM last l) AS "last_redemption_id!"
FROM page p
GROUP BY p.code_fingerprint_key
