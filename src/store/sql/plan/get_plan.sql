-- A plan.
SELECT
    n.plan_id, n.target_minor, n.day_amounts_minor, n.day_tolerance_minor, n.day_interval,
    n.redemption_interval, n.smallest_minor, n.largest_minor, n.step_minor, n.fixed_minor, n.created_at,
    n.updated_at
FROM plans n
WHERE n.pool_id = $1 AND n.plan_id = $2
