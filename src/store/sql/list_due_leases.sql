-- Accounts whose lease expire.sql would end, and more: those of which it cannot end all at once are tried a few
-- at a time. Changes nothing.
-- $1 pool_id, $2 how many at the most.
SELECT a.account_id AS "account_id!"
FROM accounts a
WHERE a.pool_id = $1
  AND a.lease_request_id >= ''
  AND a.status = 'LOCKING'
  AND a.open_redemption_id IS NULL
  AND a.lease_expires_at <= now()
ORDER BY a.account_id
LIMIT $2
