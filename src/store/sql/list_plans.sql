-- A pool's plans after $2, at most $3.
SELECT
    n.plan_id AS "plan_id!",
    n.target_minor AS "target_minor!",
    n.created_at AS "created_at!",
    n.updated_at AS "updated_at!"
FROM plans n
WHERE n.pool_id = $1 AND n.plan_id > $2
ORDER BY n.plan_id
LIMIT $3
