-- Creates a plan; no row when it is there already. $1 pool_id, $2 plan_id, $3 target in minor units,
-- $4 what each day brings, $5 the days' tolerance, $6 the time between days, $7 the time between
-- redemptions; which amounts it takes: $8 the smallest, $9 the largest, $10 the step, $11 the fixed ones; $12 who
-- creates it, $13 from where.
WITH created AS (
    INSERT INTO plans AS n (
        pool_id, plan_id, target_minor, day_amounts_minor, day_tolerance_minor, day_interval,
        redemption_interval, smallest_minor, largest_minor, step_minor, fixed_minor
    )
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
    ON CONFLICT DO NOTHING
    RETURNING n.*
),
audited AS (
    INSERT INTO audit_events (pool_id, principal, peer, action, subject, after)
    SELECT $1, $12, $13, 'CreatePlan', c.plan_id, changed_values(to_jsonb(c), '{}')
    FROM created c
    RETURNING subject, before, after
)
SELECT
    c.plan_id AS "plan_id!", c.target_minor AS "target_minor!", c.day_amounts_minor AS "day_amounts_minor!",
    c.day_tolerance_minor AS "day_tolerance_minor!", c.day_interval AS "day_interval!",
    c.redemption_interval AS "redemption_interval!", c.smallest_minor AS "smallest_minor!",
    c.largest_minor AS "largest_minor?", c.step_minor AS "step_minor?", c.fixed_minor AS "fixed_minor?",
    c.created_at AS "created_at!", c.updated_at AS "updated_at!",
    a.before AS "before?", a.after AS "after?"
FROM created c
LEFT JOIN audited a ON a.subject IS NOT NULL
