-- Deletes a pool that never had an account, with its plans, and records who did. $1 pool_id, $2 who deletes it, $3 from
-- where. No row when there is none, or when it has or had an account: an account's first event is never taken away. An
-- account or a plan that is made at this very moment is found by the foreign keys.
WITH unused AS (
    SELECT p.pool_id
    FROM pools p
    WHERE p.pool_id = $1
      AND NOT EXISTS (SELECT FROM accounts a WHERE a.pool_id = $1)
      AND NOT EXISTS (SELECT FROM account_events e WHERE e.pool_id = $1)
),
without_plans AS (
    DELETE FROM plans n
    USING unused u
    WHERE n.pool_id = $1 AND n.pool_id = u.pool_id
    RETURNING n.plan_id
),
deleted AS (
    DELETE FROM pools p
    USING unused u
    WHERE p.pool_id = $1 AND p.pool_id = u.pool_id
    RETURNING p.*
),
audited AS (
    INSERT INTO audit_events (pool_id, principal, peer, action, subject, before)
    SELECT $1, $2, $3, 'DeletePool', d.pool_id, changed_values(to_jsonb(d), '{}')
    FROM deleted d
    RETURNING before
)
SELECT a.before AS "before?" FROM audited a
