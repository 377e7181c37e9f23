-- Deletes a plan that no account is bound to. $1 pool_id, $2 plan_id, $3 who deletes it, $4 from where. No row when
-- there is none, or when an account is bound to it. One that is bound at this very moment is found by the foreign key.
WITH deleted AS (
    DELETE FROM plans n
    WHERE n.pool_id = $1
      AND n.plan_id = $2
      AND NOT EXISTS (SELECT FROM accounts a WHERE a.pool_id = $1 AND a.plan_id = $2)
    RETURNING n.*
),
audited AS (
    INSERT INTO audit_events (pool_id, principal, peer, action, subject, before)
    SELECT $1, $3, $4, 'DeletePlan', d.plan_id, changed_values(to_jsonb(d), '{}')
    FROM deleted d
    RETURNING before
)
SELECT a.before AS "before?" FROM audited a
