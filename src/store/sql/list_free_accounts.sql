-- Free accounts of a plan, of which advance_days.sql may end the day: where it cannot do so at once, they are
-- tried a few at a time. Changes nothing.
-- $1 pool_id, $2 plan_id, $3 after which account, $4 how many at the most.
SELECT a.account_id AS "account_id!"
FROM accounts a
WHERE a.pool_id = $1
  AND a.plan_id = $2
  AND a.account_id > $3
  AND a.status IN ('PROCESSING', 'WAITING')
ORDER BY a.account_id
LIMIT $4
