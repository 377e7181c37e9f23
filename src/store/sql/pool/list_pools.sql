-- Pools after $1, at most $2. Of all pools: it is the list of them.
SELECT
    p.pool_id AS "pool_id!",
    p.currency_code AS "currency_code!",
    p.default_lease AS "default_lease!",
    p.min_lease AS "min_lease!",
    p.max_lease AS "max_lease!",
    p.paused AS "paused!",
    p.draining AS "draining!",
    p.holder_share_percent AS "holder_share_percent!",
    p.hold_login_invalid AS "hold_login_invalid!",
    p.hold_limit_reached AS "hold_limit_reached!",
    p.hold_throttled AS "hold_throttled!",
    p.hold_longest AS "hold_longest!",
    p.amount_mismatch AS "amount_mismatch!",
    p.created_at AS "created_at!",
    p.updated_at AS "updated_at!"
FROM pools p
WHERE p.pool_id > $1
ORDER BY p.pool_id
LIMIT $2
