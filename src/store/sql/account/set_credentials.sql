-- Keeps an account's credentials, in the place of those that are there. $1 pool_id, $2 account_id, $3 the credentials,
-- encrypted. Nothing is written where there is no such account.
INSERT INTO account_credentials AS k (pool_id, account_id, credentials)
SELECT $1, a.account_id, $3::bytea
FROM accounts a
WHERE a.pool_id = $1 AND a.account_id = $2
ON CONFLICT (pool_id, account_id) DO UPDATE SET credentials = EXCLUDED.credentials, updated_at = now()
