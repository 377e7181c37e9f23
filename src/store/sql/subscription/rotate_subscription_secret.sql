-- Gives a subscription another secret, and records who did. The one before signs too until the overlap is over. The server
-- that delivers ends, and any begins anew with both. No row: there is no such subscription.
-- $1 pool_id, $2 subscription_id, $3 the secret, encrypted, $4 the overlap, $5 who changes it, $6 from where.
WITH changed AS (
    UPDATE subscriptions s
    SET secret = $3,
        secret_before = s.secret,
        secret_before_end = now() + $4::interval,
        claim = s.claim + 1,
        claimed_by = NULL,
        updated_at = now()
    WHERE s.pool_id = $1 AND s.subscription_id = $2
    RETURNING s.*
),
audited AS (
    INSERT INTO audit_events (pool_id, principal, peer, action, subject, after)
    SELECT
        $1, $5, $6, 'RotateSubscriptionSecret', c.subscription_id,
        jsonb_build_object('previous_secret_expire_time', c.secret_before_end)
    FROM changed c
    RETURNING subject
)
SELECT
    c.subscription_id AS "subscription_id!", c.url AS "url!", c.allow_plain AS "allow_plain!", c.states AS "states!",
    c.paused AS "paused!", c.created_by AS "created_by!", c.created_at AS "created_at!", c.updated_at AS "updated_at!",
    c.secret_before_end AS "secret_before_end?", c.failing_since AS "failing_since?", c.next_try_at AS "next_try_at?",
    c.last_error AS "last_error!"
FROM changed c
LEFT JOIN audited a ON a.subject = c.subscription_id
