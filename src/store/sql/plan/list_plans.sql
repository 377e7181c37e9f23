-- A pool's plans after $2, at most $3. A page has at most $4 bytes and one row more: a plan is not answered
-- where those before it have as many. "more" says of a plan that another was found after it.
WITH found AS (
    SELECT
        n.*,
        -- An amount has 12 bytes in an array. 512: what the columns have that are not named here.
        12 * (cardinality(n.day_amounts_minor) + COALESCE(cardinality(n.fixed_minor), 0)) + 512 AS bytes
    FROM plans n
    WHERE n.pool_id = $1 AND n.plan_id > $2
    ORDER BY n.plan_id
    LIMIT $3
),
measured AS (
    SELECT
        f.*,
        sum(f.bytes) OVER page - f.bytes AS bytes_before,
        lead(true, 1, false) OVER page AS more
    FROM found f
    WINDOW page AS (ORDER BY f.plan_id)
)
SELECT
    m.plan_id, m.target_minor, m.day_amounts_minor, m.day_tolerance_minor, m.day_interval,
    m.redemption_interval, m.smallest_minor, m.largest_minor, m.step_minor, m.fixed_minor, m.created_at,
    m.updated_at,
    m.more AS "more!"
FROM measured m
WHERE m.bytes_before < $4::bigint
ORDER BY m.plan_id
