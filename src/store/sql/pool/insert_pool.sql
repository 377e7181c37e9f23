-- Creates a pool; no row when it is there already. $1 to $14: the columns, in their order.
INSERT INTO pools AS p (
    pool_id, currency_code, default_lease, min_lease, max_lease, paused, amount_mismatch, draining,
    holder_share_percent, hold_login_invalid, hold_limit_reached, hold_throttled, hold_longest, provider_id
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
ON CONFLICT DO NOTHING
RETURNING
    p.pool_id, p.provider_id, p.currency_code, p.default_lease, p.min_lease, p.max_lease, p.paused, p.draining,
    p.holder_share_percent, p.hold_login_invalid, p.hold_limit_reached, p.hold_throttled, p.hold_longest,
    p.amount_mismatch, p.created_at, p.updated_at
