-- Creates a plan; no row when it is there already. $1 pool_id, $2 plan_id, $3 target in minor units,
-- $4 what each day brings, $5 the days' tolerance, $6 the time between days, $7 the time between
-- redemptions; which amounts it takes: $8 the smallest, $9 the largest, $10 the step, $11 the fixed ones.
INSERT INTO plans AS n (
    pool_id, plan_id, target_minor, day_amounts_minor, day_tolerance_minor, day_interval,
    redemption_interval, smallest_minor, largest_minor, step_minor, fixed_minor
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
ON CONFLICT DO NOTHING
RETURNING
    n.plan_id, n.target_minor, n.day_amounts_minor, n.day_tolerance_minor, n.day_interval,
    n.redemption_interval, n.smallest_minor, n.largest_minor, n.step_minor, n.fixed_minor, n.created_at,
    n.updated_at
