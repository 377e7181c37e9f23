-- Gives a plan other terms: all of them, as in insert_plan.sql. Guarded by the time of the last change. Another
-- one may have come between its caller's read and this ($12), and then there is no row. $13 who changes it, $14 from
-- where.
WITH was AS MATERIALIZED (
    SELECT n.* FROM plans n WHERE n.pool_id = $1 AND n.plan_id = $2 ORDER BY n.plan_id FOR NO KEY UPDATE OF n
),
changed AS (
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
    FROM was w
    WHERE n.pool_id = $1 AND n.plan_id = $2 AND n.plan_id = w.plan_id AND n.updated_at = $12
    RETURNING n.*
),
audited AS (
    INSERT INTO audit_events (pool_id, principal, peer, action, subject, before, after)
    SELECT
        $1, $13, $14, 'UpdatePlan', $2, changed_values(to_jsonb(w), to_jsonb(c)),
        changed_values(to_jsonb(c), to_jsonb(w))
    FROM changed c
    JOIN was w ON w.plan_id = c.plan_id
    WHERE changed_values(to_jsonb(c), to_jsonb(w)) IS NOT NULL OR changed_values(to_jsonb(w), to_jsonb(c)) IS NOT NULL
    RETURNING subject, before, after
)
SELECT
    c.plan_id AS "plan_id!", c.target_minor AS "target_minor!", c.day_amounts_minor AS "day_amounts_minor!",
    c.day_tolerance_minor AS "day_tolerance_minor!", c.day_interval AS "day_interval!",
    c.redemption_interval AS "redemption_interval!", c.smallest_minor AS "smallest_minor!",
    c.largest_minor AS "largest_minor?", c.step_minor AS "step_minor?", c.fixed_minor AS "fixed_minor?",
    c.created_at AS "created_at!", c.updated_at AS "updated_at!",
    a.before AS "before?", a.after AS "after?"
FROM changed c
LEFT JOIN audited a ON a.subject IS NOT NULL
