-- Deletes a subscription, with its deliveries by their foreign key, and records who did. No row: there is none.
-- $1 pool_id, $2 subscription_id, $3 who deletes it, $4 from where.
WITH deleted AS (
    DELETE FROM subscriptions s
    WHERE s.pool_id = $1 AND s.subscription_id = $2
    RETURNING s.subscription_id, s.url, s.states
),
audited AS (
    INSERT INTO audit_events (pool_id, principal, peer, action, subject, before)
    SELECT
        $1, $3, $4, 'DeleteSubscription', d.subscription_id,
        jsonb_build_object('url', d.url, 'states', d.states)
    FROM deleted d
    RETURNING before
)
SELECT a.before AS "before?" FROM audited a
