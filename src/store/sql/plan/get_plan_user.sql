-- One of the accounts that are bound to a plan. $1 pool_id, $2 plan_id.
SELECT a.account_id
FROM accounts a
WHERE a.pool_id = $1 AND a.plan_id = $2
LIMIT 1
