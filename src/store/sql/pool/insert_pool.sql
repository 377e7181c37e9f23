-- Creates a pool; no row when it is there already. $1 to $13: the columns, in their order.
INSERT INTO pools AS p (
    pool_id, currency_code, default_lease, min_lease, max_lease, paused, amount_mismatch, draining,
    holder_share_percent, hold_login_invalid, hold_limit_reached, hold_throttled, hold_longest
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
ON CONFLICT DO NOTHING
RETURNING
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
