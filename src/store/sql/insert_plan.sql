-- Creates a plan; no row when it is there already. $1 pool_id, $2 plan_id, $3 target in minor units.
INSERT INTO plans AS n (pool_id, plan_id, target_minor)
VALUES ($1, $2, $3)
ON CONFLICT DO NOTHING
RETURNING
    n.plan_id AS "plan_id!",
    n.target_minor AS "target_minor!",
    n.created_at AS "created_at!",
    n.updated_at AS "updated_at!"
