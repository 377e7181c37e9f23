-- Settle, shape (a): the outcomes of redemptions become known. Each is recorded and its code wiped;
-- its account is credited, gets the status to go back to, and is given back if that was wished or
-- its lease's time has passed. Not fenced: an account with an open redemption is never leased anew,
-- so the account's own mark is guard enough.
-- $1 pool_id; one element for each outcome: $2 redemption ids, $3 states (SUCCEEDED or FAILED),
-- $4 amounts in minor units, $5 their currencies, $6 provider refs, $7 failure reasons,
-- $8 failure messages, $9 whether the code is spent, $10 calls made since the last record,
-- $11 who settles, $12 who resolved it and $13 why (both null unless a person did; $16 what that
-- person looked at, null where nothing is named),
-- $14 what is wrong with the account, where that is why it failed (LOGIN_INVALID, LIMIT_REACHED,
-- THROTTLED; else null): it is left in peace for a while, $15 whether it is inferred: a failure that only
-- follows from what this server sent, and holds only while nobody else has taken over.
-- No redemption may be named twice. One without a row in the answer is settled already, or unknown, or
-- in doubt where the outcome is inferred.
WITH outcome AS MATERIALIZED (
    SELECT o.*
    FROM unnest(
        $2::uuid[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::text[], $8::text[],
        $9::bool[], $10::int[], $11::text[], $12::text[], $13::text[], $14::text[], $15::bool[],
        $16::text[]
    ) AS o (
        redemption_id, state, amount_minor, amount_currency, provider_ref, failure_reason,
        failure_message, code_spent, attempts, actor, resolved_by, resolution_reason, hold_cause,
        inferred, resolution_evidence
    )
),
locked AS MATERIALIZED (
    SELECT
        a.account_id, r.redemption_id,
        a.lease_expires_at <= now() AS expired,
        r.release_on_completion OR a.release_requested AS release_wished,
        o.state = 'SUCCEEDED' AND COALESCE(
            a.balance_minor + o.amount_minor >= p.target_minor, false
        ) AS target_reached,
        o.state = 'SUCCEEDED' AND COALESCE(
            a.balance_minor + o.amount_minor < p.target_minor
            AND a.plan_day < cardinality(p.day_amounts_minor)
            AND (
                a.day_credited_minor + o.amount_minor >= p.day_amounts_minor[a.plan_day]
                OR NOT plan_wants(
                    a.balance_minor + o.amount_minor, a.plan_day, a.day_credited_minor + o.amount_minor,
                    p.target_minor, p.day_amounts_minor, p.day_tolerance_minor,
                    p.smallest_minor, p.largest_minor, p.step_minor, p.fixed_minor, p.least_steps
                )
            ),
            false
        ) AS day_ended,
        ((now() AT TIME ZONE 'utc') + p.day_interval) AT TIME ZONE 'utc' AS next_day_at,
        ((now() AT TIME ZONE 'utc') + NULLIF(p.redemption_interval, interval '0')) AT TIME ZONE 'utc'
            AS cooldown_until,
        -- In seconds: an interval that is doubled too often is out of Postgres's range.
        ((now() AT TIME ZONE 'utc') + make_interval(secs => LEAST(
            extract(epoch FROM q.hold_longest)::float8,
            power(2, LEAST(a.hold_count, 20)) * extract(epoch FROM CASE o.hold_cause
                WHEN 'LOGIN_INVALID' THEN q.hold_login_invalid
                WHEN 'LIMIT_REACHED' THEN q.hold_limit_reached
                WHEN 'THROTTLED' THEN q.hold_throttled
            END)::float8
        ))) AT TIME ZONE 'utc' AS hold_until
    FROM outcome o
    JOIN redemptions r ON r.pool_id = $1 AND r.redemption_id = o.redemption_id
    JOIN accounts a ON a.pool_id = $1 AND a.account_id = r.account_id
    JOIN pools q ON q.pool_id = $1
    LEFT JOIN plans p ON p.pool_id = $1 AND p.plan_id = a.plan_id
    WHERE a.pool_id = $1
      AND a.open_redemption_id = r.redemption_id
      AND r.state IN ('SUBMITTED', 'IN_DOUBT', 'NEEDS_REVIEW')
      AND (NOT o.inferred OR r.state = 'SUBMITTED')
    ORDER BY a.account_id
    FOR NO KEY UPDATE OF a
),
settled AS (
    UPDATE redemptions r
    SET state = o.state,
        amount_minor = COALESCE(o.amount_minor, r.amount_minor),
        amount_currency = COALESCE(o.amount_currency, r.amount_currency),
        provider_ref = COALESCE(o.provider_ref, r.provider_ref),
        failure_reason = o.failure_reason,
        failure_message = o.failure_message,
        code_spent = o.code_spent,
        attempts = r.attempts + o.attempts,
        resolved_by = o.resolved_by,
        resolution_reason = o.resolution_reason,
        resolution_evidence = o.resolution_evidence,
        code_ciphertext = NULL,
        next_check_at = NULL,
        updated_at = now(),
        finished_at = now()
    FROM outcome o
    JOIN locked l ON l.redemption_id = o.redemption_id
    WHERE r.pool_id = $1
      AND r.redemption_id = o.redemption_id
      AND r.state IN ('SUBMITTED', 'IN_DOUBT', 'NEEDS_REVIEW')
      AND (NOT o.inferred OR r.state = 'SUBMITTED')
    RETURNING r.*
),
-- The status to go back to: as it was after a failure; else by what is filled now.
onward AS MATERIALIZED (
    SELECT
        l.*,
        CASE
            WHEN o.state = 'FAILED' THEN NULL
            WHEN l.target_reached THEN 'COMPLETED'
            WHEN l.day_ended THEN 'WAITING'
            ELSE 'PROCESSING'
        END AS resume_status
    FROM locked l
    JOIN outcome o ON o.redemption_id = l.redemption_id
),
credited AS (
    UPDATE accounts a
    SET balance_minor = a.balance_minor + CASE WHEN s.state = 'SUCCEEDED' THEN s.amount_minor ELSE 0 END,
        open_redemption_id = NULL,
        release_requested = false,
        resume_status = COALESCE(l.resume_status, a.resume_status),
        status = CASE
            WHEN l.release_wished OR l.expired THEN COALESCE(l.resume_status, a.resume_status)
            ELSE a.status
        END,
        plan_day = CASE WHEN l.day_ended THEN a.plan_day + 1 ELSE a.plan_day END,
        day_credited_minor = CASE
            WHEN l.day_ended OR a.plan_id IS NULL THEN 0
            -- A late credit may have come under the plan that it leaves now.
            WHEN a.bound_by_lease AND s.state = 'FAILED' AND (l.release_wished OR l.expired) THEN 0
            WHEN s.state = 'SUCCEEDED' THEN a.day_credited_minor + s.amount_minor
            ELSE a.day_credited_minor
        END,
        day_due_at = CASE WHEN l.day_ended THEN l.next_day_at ELSE a.day_due_at END,
        cooldown_until = l.cooldown_until,
        reserved_minor = NULL,
        hold_cause = CASE
            WHEN s.state = 'SUCCEEDED' THEN NULL ELSE COALESCE(o.hold_cause, a.hold_cause)
        END,
        hold_until = CASE
            WHEN s.state = 'SUCCEEDED' THEN NULL
            WHEN o.hold_cause IS NOT NULL THEN l.hold_until
            ELSE a.hold_until
        END,
        hold_count = CASE
            WHEN s.state = 'SUCCEEDED' THEN 0
            WHEN o.hold_cause IS NOT NULL THEN a.hold_count + 1
            ELSE a.hold_count
        END,
        plan_id = CASE
            WHEN a.bound_by_lease AND s.state = 'FAILED' AND (l.release_wished OR l.expired) THEN NULL
            ELSE a.plan_id
        END,
        bound_by_lease = a.bound_by_lease
            AND s.state = 'FAILED' AND NOT (l.release_wished OR l.expired),
        login_status = CASE
            WHEN o.hold_cause = 'LOGIN_INVALID' THEN 'INVALID' ELSE a.login_status
        END,
        lease_end = CASE WHEN l.release_wished THEN 'released' WHEN l.expired THEN 'expired' END,
        idle_since = now(),
        change_actor = o.actor,
        change_reason = CASE s.state WHEN 'SUCCEEDED' THEN 'redeemed' ELSE 'redeem_failed' END
    FROM settled s
    JOIN onward l ON l.redemption_id = s.redemption_id
    JOIN outcome o ON o.redemption_id = s.redemption_id
    WHERE a.pool_id = $1
      AND a.account_id = s.account_id
      AND a.open_redemption_id = s.redemption_id
    RETURNING a.account_id, a.status, a.resume_status, a.balance_minor
)
SELECT
    c.status AS "account_status!",
    c.resume_status AS "resume_status!",
    c.balance_minor AS "account_balance_minor!",
    s.redemption_id AS "redemption_id!",
    s.account_id AS "account_id!",
    s.fencing_token AS "fencing_token!",
    s.request_id AS "request_id!",
    s.holder AS "holder!",
    s.state AS "state!",
    s.code_last4 AS "code_last4!",
    s.expected_minor AS "expected_minor?",
    s.expected_learned AS "expected_learned!",
    s.amount_minor AS "amount_minor?",
    s.amount_currency AS "amount_currency?",
    s.provider_ref AS "provider_ref?",
    s.failure_reason AS "failure_reason?",
    s.failure_message AS "failure_message?",
    s.code_spent AS "code_spent?",
    s.resolved_by AS "resolved_by?",
    s.resolution_reason AS "resolution_reason?",
    s.resolution_evidence AS "resolution_evidence?",
    s.attempts AS "attempts!",
    s.last_answer AS "last_answer?",
    s.next_check_at AS "next_check_at?",
    s.created_at AS "created_at!",
    s.finished_at AS "finished_at?"
FROM settled s
JOIN credited c ON c.account_id = s.account_id
