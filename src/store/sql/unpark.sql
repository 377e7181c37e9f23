-- Unpark, shape (a): accounts whose time has come go back into the index that acquire walks. Changes
-- nothing else, and leaves no event.
-- $1 pool_id, $2 how many at the most. Answers with how many there were.
-- SKIP LOCKED: somebody is unparking or acquiring those just now.
WITH due AS MATERIALIZED (
    SELECT a.account_id, a.fencing_token, a.version
    FROM accounts a
    WHERE a.pool_id = $1 AND a.parked AND a.usable_at <= now()
    ORDER BY a.usable_at
    LIMIT $2
    FOR NO KEY UPDATE OF a SKIP LOCKED
),
unparked AS (
    UPDATE accounts a
    SET change_reason = 'due'
    FROM due d
    WHERE a.pool_id = $1
      AND a.account_id = d.account_id
      AND a.fencing_token = d.fencing_token
      AND a.status IN ('PROCESSING', 'WAITING')
      -- Not by what the index is of: one row after the other is looked up by its key.
      AND a.version = d.version
    RETURNING a.account_id
)
SELECT count(*) AS "unparked!" FROM unparked u
