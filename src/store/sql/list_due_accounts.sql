-- Accounts that promote.sql would put back into the index, and more. Where it cannot put all back at once, they
-- are tried a few at a time. Changes nothing.
-- $1 pool_id, $2 how many at the most.
SELECT a.account_id AS "account_id!"
FROM accounts a
WHERE a.pool_id = $1 AND a.parked AND a.usable_at <= now()
ORDER BY a.usable_at
LIMIT $2
