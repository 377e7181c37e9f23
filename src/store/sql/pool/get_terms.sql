-- What of a pool decides about its accounts: its revision, and with each of its plans a row. A pool without plans
-- has one row, without a plan. All of it is of one time: plans raise the revision of their pool.
SELECT
    p.revision AS "revision!",
    p.paused AS "paused!",
    p.draining AS "draining!",
    p.hold_login_invalid AS "hold_login_invalid!",
    p.hold_limit_reached AS "hold_limit_reached!",
    p.hold_throttled AS "hold_throttled!",
    p.hold_longest AS "hold_longest!",
    n.plan_id AS "plan_id?",
    n.target_minor AS "target_minor?",
    n.day_amounts_minor AS "day_amounts_minor?",
    n.day_tolerance_minor AS "day_tolerance_minor?",
    n.day_interval AS "day_interval?",
    n.redemption_interval AS "redemption_interval?",
    n.smallest_minor AS "smallest_minor?",
    n.largest_minor AS "largest_minor?",
    n.step_minor AS "step_minor?",
    n.fixed_minor AS "fixed_minor?"
FROM pools p
LEFT JOIN plans n ON n.pool_id = $1
WHERE p.pool_id = $1
