-- Creates a pool; no row when it is there already. $1 to $14: the columns, in their order; $15 who creates it, $16 from
-- where.
WITH created AS (
    INSERT INTO pools AS p (
        pool_id, currency_code, default_lease, min_lease, max_lease, paused, amount_mismatch, draining,
        holder_share_percent, hold_login_invalid, hold_limit_reached, hold_throttled, hold_longest, provider_id
    )
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
    ON CONFLICT DO NOTHING
    RETURNING p.*
),
audited AS (
    INSERT INTO audit_events (pool_id, principal, peer, action, subject, after)
    SELECT c.pool_id, $15, $16, 'CreatePool', c.pool_id, changed_values(to_jsonb(c), '{}')
    FROM created c
    RETURNING subject, before, after
)
SELECT
    c.pool_id AS "pool_id!", c.provider_id AS "provider_id!", c.currency_code AS "currency_code!",
    c.default_lease AS "default_lease!", c.min_lease AS "min_lease!", c.max_lease AS "max_lease!",
    c.paused AS "paused!", c.draining AS "draining!", c.holder_share_percent AS "holder_share_percent!",
    c.hold_login_invalid AS "hold_login_invalid!", c.hold_limit_reached AS "hold_limit_reached!",
    c.hold_throttled AS "hold_throttled!", c.hold_longest AS "hold_longest!", c.amount_mismatch AS "amount_mismatch!",
    c.created_at AS "created_at!", c.updated_at AS "updated_at!",
    a.before AS "before?", a.after AS "after?"
FROM created c
LEFT JOIN audited a ON a.subject IS NOT NULL
