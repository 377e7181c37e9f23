-- Changes a subscription, guarded by the time of the last change ($8), and records who did. The server that delivers ends, and
-- any begins anew as it is now. No row: it is not as it was read.
-- $1 pool_id, $2 subscription_id, $3 the URL, $4 whether it may be plain http, $5 the states, $6 whether it is paused; $7 who
-- changes it, $9 from where.
WITH was AS MATERIALIZED (
    SELECT s.*
    FROM subscriptions s
    WHERE s.pool_id = $1 AND s.subscription_id = $2
    ORDER BY s.pool_id
    FOR NO KEY UPDATE
),
changed AS (
    UPDATE subscriptions s
    SET url = $3,
        allow_plain = $4,
        states = $5,
        paused = $6,
        claim = s.claim + 1,
        claimed_by = NULL,
        failures = 0,
        failing_since = NULL,
        next_try_at = NULL,
        last_error = '',
        updated_at = now()
    FROM was w
    WHERE s.pool_id = $1 AND s.subscription_id = w.subscription_id AND s.updated_at = $8
    RETURNING s.*
),
audited AS (
    INSERT INTO audit_events (pool_id, principal, peer, action, subject, before, after)
    SELECT
        $1, $7, $9, 'UpdateSubscription', $2,
        jsonb_build_object('url', w.url, 'states', w.states, 'paused', w.paused),
        jsonb_build_object('url', c.url, 'states', c.states, 'paused', c.paused)
    FROM changed c
    JOIN was w ON w.subscription_id = c.subscription_id
    WHERE (c.url, c.states, c.paused) IS DISTINCT FROM (w.url, w.states, w.paused)
    RETURNING subject, before, after
)
SELECT
    c.subscription_id AS "subscription_id!", c.url AS "url!", c.allow_plain AS "allow_plain!", c.states AS "states!",
    c.paused AS "paused!", c.created_by AS "created_by!", c.created_at AS "created_at!", c.updated_at AS "updated_at!",
    c.secret_before_end AS "secret_before_end?", c.failing_since AS "failing_since?", c.next_try_at AS "next_try_at?",
    c.last_error AS "last_error!", a.before AS "before?", a.after AS "after?"
FROM changed c
LEFT JOIN audited a ON a.subject IS NOT NULL
