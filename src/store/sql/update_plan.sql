-- Changes a plan's target. $1 pool_id, $2 plan_id, $3 target in minor units.
UPDATE plans n
SET target_minor = $3, updated_at = now()
WHERE n.pool_id = $1 AND n.plan_id = $2
RETURNING
    n.plan_id AS "plan_id!",
    n.target_minor AS "target_minor!",
    n.created_at AS "created_at!",
    n.updated_at AS "updated_at!"
