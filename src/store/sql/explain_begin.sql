-- Why begin.sql recorded nothing for some inputs. Changes nothing.
-- $1 pool_id; one element for each input: $2 places, $3 account ids, $4 request ids,
-- $5 code fingerprints, $6 amounts expected.
SELECT
    w.place AS "place!",
    EXISTS (SELECT FROM pools p WHERE p.pool_id = $1) AS "pool_exists!",
    EXISTS (SELECT FROM pools p WHERE p.pool_id = $1 AND p.paused) AS "pool_paused!",
    a.status AS "status?",
    a.fencing_token AS "fencing_token?",
    a.lease_end AS "lease_end?",
    a.lease_expires_at <= now() AS "lease_expired?",
    a.release_requested AS "release_requested?",
    a.open_redemption_id AS "open_redemption_id?",
    a.paused AS "account_paused?",
    CASE GREATEST(a.usable_at, t.now)
        WHEN a.hold_until THEN 'hold'
        WHEN a.day_due_at THEN 'next_day'
        WHEN a.cooldown_until THEN 'cooldown'
    END AS "rest_cause?",
    a.usable_at - t.now AS "rest_left?",
    CASE WHEN n.plan_id IS NOT NULL THEN plan_misfit(
        w.expected_minor, a.balance_minor, a.plan_day, a.day_credited_minor,
        n.target_minor, n.day_amounts_minor, n.day_tolerance_minor,
        n.smallest_minor, n.largest_minor, n.step_minor, n.fixed_minor, n.least_steps
    ) END AS "misfit?",
    n.plan_id AS "plan_id?",
    n.target_minor - a.balance_minor AS "headroom_minor?",
    plan_room(
        a.balance_minor, a.plan_day, a.day_credited_minor,
        n.target_minor, n.day_amounts_minor, n.day_tolerance_minor
    ) AS "day_headroom_minor?",
    same_request.redemption_id AS "same_request?",
    same_request.code_fingerprint AS "same_request_fingerprint?",
    same_code.redemption_id AS "same_code?",
    same_code.request_id AS "same_code_request_id?",
    same_code.state AS "same_code_state?"
FROM unnest($2::int[], $3::text[], $4::text[], $5::bytea[], $6::bigint[])
    AS w (place, account_id, request_id, code_fingerprint, expected_minor)
CROSS JOIN (SELECT now() AS now) t
LEFT JOIN accounts a ON a.pool_id = $1 AND a.account_id = w.account_id
LEFT JOIN plans n ON n.pool_id = $1 AND n.plan_id = a.plan_id
LEFT JOIN redemptions same_request
    ON same_request.pool_id = $1 AND same_request.request_id = w.request_id
LEFT JOIN redemptions same_code
    ON same_code.pool_id = $1
    AND same_code.code_fingerprint = w.code_fingerprint
    AND same_code.state IN ('SUBMITTED', 'IN_DOUBT', 'NEEDS_REVIEW', 'SUCCEEDED')
