-- Makes a subscription, and records who did. No row: one has its id already, there is no such pool, or it has as many as it may.
-- $1 pool_id, $2 subscription_id, $3 the URL, $4 whether it may be plain http, $5 the states, $6 the secret, encrypted, $7 the
-- cursor from which on outcomes are sent, $8 who makes it, $9 from where, $10 how many a pool may have.
WITH made AS (
    INSERT INTO subscriptions AS s (
        pool_id, subscription_id, url, allow_plain, states, paused, created_by, secret, cursor
    )
    SELECT $1, $2, $3, $4, $5, false, $8, $6, $7
    FROM pools p
    WHERE p.pool_id = $1
      AND (SELECT count(*) FROM subscriptions o WHERE o.pool_id = $1) < $10::bigint
    ON CONFLICT DO NOTHING
    RETURNING s.*
),
audited AS (
    INSERT INTO audit_events (pool_id, principal, peer, action, subject, after)
    SELECT
        $1, $8, $9, 'CreateSubscription', m.subscription_id,
        jsonb_build_object('url', m.url, 'states', m.states)
    FROM made m
    RETURNING subject
)
SELECT
    m.subscription_id AS "subscription_id!", m.url AS "url!", m.allow_plain AS "allow_plain!", m.states AS "states!",
    m.paused AS "paused!", m.created_by AS "created_by!", m.created_at AS "created_at!", m.updated_at AS "updated_at!",
    m.secret_before_end AS "secret_before_end?", m.failing_since AS "failing_since?", m.next_try_at AS "next_try_at?",
    m.last_error AS "last_error!"
FROM made m
LEFT JOIN audited a ON a.subject = m.subscription_id
