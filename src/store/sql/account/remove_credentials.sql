-- Removes an account's credentials. $1 pool_id, $2 account_id, $3 who removes them, $4 from where.
WITH removed AS (
    DELETE FROM account_credentials k
    WHERE k.pool_id = $1 AND k.account_id = $2
    RETURNING k.account_id
)
INSERT INTO audit_events (pool_id, principal, peer, action, subject, after)
SELECT $1, $3, $4, 'UpdateAccount', k.account_id, '{"credentials": "removed"}'
FROM removed k
