-- Deletes a plan that no account is bound to. $1 pool_id, $2 plan_id. No row when there is none, or when
-- an account is bound to it. One that is bound at this very moment is found by the foreign key.
DELETE FROM plans n
WHERE n.pool_id = $1
  AND n.plan_id = $2
  AND NOT EXISTS (SELECT FROM accounts a WHERE a.pool_id = $1 AND a.plan_id = $2)
RETURNING n.plan_id
