-- Promote, shape (a): deferred accounts whose time has come go back into the index that acquire scans. Changes
-- nothing else, and leaves no event.
-- $1 pool_id, $2 how many at the most; $3 account ids, $4 whether only these are meant, or all but these.
-- Answers with their position in that index.
-- SKIP LOCKED: somebody is promoting or acquiring those just now.
WITH due AS MATERIALIZED (
    SELECT a.account_id, a.version
    FROM accounts a
    WHERE a.pool_id = $1
      AND a.parked
      AND a.usable_at <= now()
      AND (a.account_id = ANY ($3::text[])) = $4::boolean
    ORDER BY a.usable_at
    LIMIT $2
    FOR NO KEY UPDATE OF a SKIP LOCKED
),
promoted AS (
    UPDATE accounts a
    SET parked = false
    FROM due d
    WHERE a.pool_id = $1
      AND a.account_id = d.account_id
      AND a.status IN ('PROCESSING', 'WAITING')
      -- Not by what the index is of: one row after the other is looked up by its key.
      AND a.version = d.version
    RETURNING a.plan_id, a.status, a.plan_day, a.balance_minor, a.idle_since
)
SELECT
    p.plan_id AS "plan_id?",
    p.status AS "status!",
    p.plan_day AS "plan_day!",
    p.balance_minor AS "balance_minor!",
    p.idle_since AS "idle_since!"
FROM promoted p
