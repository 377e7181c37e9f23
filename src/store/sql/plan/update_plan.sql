-- Gives a plan other terms: all of them, as in insert_plan.sql. Guarded by the time of the last change. Another
-- one may have come between its caller's read and this ($12), and then there is no row.
UPDATE plans n
SET target_minor = $3,
    day_amounts_minor = $4,
    day_tolerance_minor = $5,
    day_interval = $6,
    redemption_interval = $7,
    smallest_minor = $8,
    largest_minor = $9,
    step_minor = $10,
    fixed_minor = $11,
    updated_at = now()
WHERE n.pool_id = $1 AND n.plan_id = $2 AND n.updated_at = $12
RETURNING
    n.plan_id, n.target_minor, n.day_amounts_minor, n.day_tolerance_minor, n.day_interval,
    n.redemption_interval, n.smallest_minor, n.largest_minor, n.step_minor, n.fixed_minor, n.created_at,
    n.updated_at
