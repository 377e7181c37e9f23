-- Changes a plan's target, where one is given.
UPDATE plans n
SET target_minor = COALESCE($3::bigint, n.target_minor), updated_at = now()
WHERE n.pool_id = $1 AND n.plan_id = $2
RETURNING
    n.plan_id AS "plan_id!",
    n.target_minor AS "target_minor!",
    n.created_at AS "created_at!",
    n.updated_at AS "updated_at!"
