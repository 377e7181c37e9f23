-- Removes leases that no account is under any more: a person's trigger kept the account from being changed, or a
-- person took it away. $1 pool_id.
DELETE FROM leases l
WHERE l.pool_id = $1
  AND l.expires_at <= now()
  AND NOT EXISTS (
      SELECT FROM accounts a
      WHERE a.pool_id = $1
        AND a.account_id = l.account_id
        AND a.lease_request_id = l.request_id
        AND a.lease_principal = l.principal
  )
