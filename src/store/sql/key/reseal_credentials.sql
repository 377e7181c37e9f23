-- Of no pool: keeps credentials under another key. Those that were replaced meanwhile stay as they are; so do those whose
-- row somebody holds. Answers how many.
-- One element for each account: $1 pool ids, $2 account ids, $3 credentials as they were stored, $4 as they are to be.
WITH found AS MATERIALIZED (
    SELECT k.pool_id, k.account_id, w.was, w.credentials
    FROM unnest($1::text[], $2::text[], $3::bytea[], $4::bytea[]) AS w (pool_id, account_id, was, credentials)
    JOIN account_credentials k ON k.pool_id = w.pool_id AND k.account_id = w.account_id
    WHERE k.credentials = w.was
    ORDER BY k.account_id
    FOR NO KEY UPDATE OF k SKIP LOCKED
),
written AS (
    UPDATE account_credentials k
    SET credentials = w.credentials
    FROM found w
    WHERE k.pool_id = w.pool_id AND k.account_id = w.account_id AND k.credentials = w.was
    RETURNING k.account_id
)
SELECT count(*) AS "written!"
FROM written
