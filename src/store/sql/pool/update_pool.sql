-- Changes a pool where a value is given. No row when there is no such pool, or when the lease
-- durations would be out of order. Another change may have come between its caller's read and this.
-- $13 who changes it, $14 from where.
WITH was AS MATERIALIZED (
    SELECT p.* FROM pools p WHERE p.pool_id = $1 ORDER BY p.pool_id FOR NO KEY UPDATE OF p
),
changed AS (
    UPDATE pools p
    SET default_lease = COALESCE($2::interval, p.default_lease),
        min_lease = COALESCE($3::interval, p.min_lease),
        max_lease = COALESCE($4::interval, p.max_lease),
        paused = COALESCE($5::bool, p.paused),
        amount_mismatch = COALESCE($6::text, p.amount_mismatch),
        draining = COALESCE($7::bool, p.draining),
        holder_share_percent = COALESCE($8::int, p.holder_share_percent),
        hold_login_invalid = COALESCE($9::interval, p.hold_login_invalid),
        hold_limit_reached = COALESCE($10::interval, p.hold_limit_reached),
        hold_throttled = COALESCE($11::interval, p.hold_throttled),
        hold_longest = COALESCE($12::interval, p.hold_longest),
        updated_at = now()
    FROM was w
    WHERE p.pool_id = $1
      AND p.pool_id = w.pool_id
      AND COALESCE($3::interval, p.min_lease) <= COALESCE($2::interval, p.default_lease)
      AND COALESCE($2::interval, p.default_lease) <= COALESCE($4::interval, p.max_lease)
    RETURNING p.*
),
audited AS (
    INSERT INTO audit_events (pool_id, principal, peer, action, subject, before, after)
    SELECT
        $1, $13, $14, 'UpdatePool', $1, changed_values(to_jsonb(w), to_jsonb(c)),
        changed_values(to_jsonb(c), to_jsonb(w))
    FROM changed c
    JOIN was w ON w.pool_id = c.pool_id
    WHERE changed_values(to_jsonb(c), to_jsonb(w)) IS NOT NULL
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
FROM changed c
LEFT JOIN audited a ON a.subject IS NOT NULL
