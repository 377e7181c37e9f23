-- A plan.
SELECT
    n.plan_id AS "plan_id!",
    n.target_minor AS "target_minor!",
    n.day_amounts_minor AS "day_amounts_minor!",
    n.day_tolerance_minor AS "day_tolerance_minor!",
    n.day_interval AS "day_interval!",
    n.redemption_interval AS "redemption_interval!",
    n.smallest_minor AS "smallest_minor!",
    n.largest_minor AS "largest_minor?",
    n.step_minor AS "step_minor?",
    n.fixed_minor AS "fixed_minor?",
    n.created_at AS "created_at!",
    n.updated_at AS "updated_at!"
FROM plans n
WHERE n.pool_id = $1 AND n.plan_id = $2
