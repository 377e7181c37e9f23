-- Keeps an account's credentials, in the place of those that are there. $1 pool_id, $2 account_id, $3 the credentials,
-- encrypted; $4 who sets them, $5 from where. Nothing is written where there is no such account.
WITH kept AS (
    INSERT INTO account_credentials AS k (pool_id, account_id, credentials)
    SELECT $1, a.account_id, $3::bytea
    FROM accounts a
    WHERE a.pool_id = $1 AND a.account_id = $2
    ON CONFLICT (pool_id, account_id) DO UPDATE SET credentials = EXCLUDED.credentials, updated_at = now()
    RETURNING k.account_id
)
INSERT INTO audit_events (pool_id, principal, peer, action, subject, after)
SELECT $1, $4, $5, 'UpdateAccount', k.account_id, '{"credentials": "set"}'
FROM kept k
