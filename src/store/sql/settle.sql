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
-- follows from what this server sent, and holds only while nobody else has taken over; $17 the state that
-- the person who resolved it saw (null unless a person did): in another one more is known of it by now.
-- No redemption may be named twice. One without a row in the answer is settled already, or unknown, or
-- in doubt where the outcome is inferred, or in another state than was seen.
WITH due AS MATERIALIZED (
    SELECT
        o.*, r.account_id,
        -- Cannot rise as long as the redemption is open.
        a.fencing_token AS account_token,
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
    FROM unnest(
        $2::uuid[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::text[], $8::text[],
        $9::bool[], $10::int[], $11::text[], $12::text[], $13::text[], $14::text[], $15::bool[],
        $16::text[], $17::text[]
    ) AS o (
        redemption_id, state, amount_minor, amount_currency, provider_ref, failure_reason,
        failure_message, code_spent, attempts, actor, resolved_by, resolution_reason, hold_cause,
        inferred, resolution_evidence, seen_state
    )
    JOIN redemptions r ON r.pool_id = $1 AND r.redemption_id = o.redemption_id
    JOIN accounts a ON a.pool_id = $1 AND a.account_id = r.account_id
    JOIN pools q ON q.pool_id = $1
    LEFT JOIN plans p ON p.pool_id = $1 AND p.plan_id = a.plan_id
    WHERE a.pool_id = $1
      AND a.open_redemption_id = r.redemption_id
      -- Not by the states that are open: one row after the other is looked up by its key.
      AND r.finished_at IS NULL
      AND (NOT o.inferred OR r.state = 'SUBMITTED')
      AND r.state = COALESCE(o.seen_state, r.state)
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
    FROM due o
    WHERE r.pool_id = $1
      AND r.redemption_id = o.redemption_id
      AND r.finished_at IS NULL
      AND (NOT o.inferred OR r.state = 'SUBMITTED')
      AND r.state = COALESCE(o.seen_state, r.state)
    RETURNING
        r.redemption_id, r.account_id, r.fencing_token, r.request_id, r.holder, r.state, r.code_last4,
        r.expected_minor, r.expected_learned, r.amount_minor, r.amount_currency, r.provider_ref,
        r.failure_reason, r.failure_message, r.code_spent, r.resolved_by, r.resolution_reason,
        r.resolution_evidence, r.attempts, r.last_answer, r.next_check_at, r.created_at, r.finished_at,
        o.actor, o.account_token, o.hold_cause, o.hold_until, o.day_ended, o.next_day_at, o.cooldown_until,
        -- The status to go back to: as it was after a failure; else by what is filled now.
        CASE
            WHEN o.state = 'FAILED' THEN NULL
            WHEN o.target_reached THEN 'COMPLETED'
            WHEN o.day_ended THEN 'WAITING'
            ELSE 'PROCESSING'
        END AS resume_status,
        CASE WHEN o.release_wished THEN 'released' WHEN o.expired THEN 'expired' END AS lease_end
),
credited AS (
    UPDATE accounts a
    SET balance_minor = a.balance_minor + CASE WHEN s.state = 'SUCCEEDED' THEN s.amount_minor ELSE 0 END,
        open_redemption_id = NULL,
        release_requested = false,
        resume_status = COALESCE(s.resume_status, a.resume_status),
        status = CASE
            WHEN s.lease_end IS NOT NULL THEN COALESCE(s.resume_status, a.resume_status)
            ELSE a.status
        END,
        plan_day = CASE WHEN s.day_ended THEN a.plan_day + 1 ELSE a.plan_day END,
        day_credited_minor = CASE
            WHEN s.day_ended OR a.plan_id IS NULL THEN 0
            -- A late credit may have come under the plan that it leaves now.
            WHEN a.bound_by_lease AND s.state = 'FAILED' AND s.lease_end IS NOT NULL THEN 0
            WHEN s.state = 'SUCCEEDED' THEN a.day_credited_minor + s.amount_minor
            ELSE a.day_credited_minor
        END,
        day_due_at = CASE WHEN s.day_ended THEN s.next_day_at ELSE a.day_due_at END,
        cooldown_until = s.cooldown_until,
        reserved_minor = NULL,
        hold_cause = CASE
            WHEN s.state = 'SUCCEEDED' THEN NULL ELSE COALESCE(s.hold_cause, a.hold_cause)
        END,
        hold_until = CASE
            WHEN s.state = 'SUCCEEDED' THEN NULL
            WHEN s.hold_cause IS NOT NULL THEN s.hold_until
            ELSE a.hold_until
        END,
        hold_count = CASE
            WHEN s.state = 'SUCCEEDED' THEN 0
            WHEN s.hold_cause IS NOT NULL THEN a.hold_count + 1
            ELSE a.hold_count
        END,
        plan_id = CASE
            WHEN a.bound_by_lease AND s.state = 'FAILED' AND s.lease_end IS NOT NULL THEN NULL
            ELSE a.plan_id
        END,
        bound_by_lease = a.bound_by_lease AND s.state = 'FAILED' AND s.lease_end IS NULL,
        login_status = CASE
            WHEN s.hold_cause = 'LOGIN_INVALID' THEN 'INVALID' ELSE a.login_status
        END,
        lease_end = s.lease_end,
        idle_since = now(),
        change_actor = s.actor,
        change_reason = CASE s.state WHEN 'SUCCEEDED' THEN 'redeemed' ELSE 'redeem_failed' END
    FROM settled s
    WHERE a.pool_id = $1
      AND a.account_id = s.account_id
      AND a.fencing_token = s.account_token
      AND a.open_redemption_id = s.redemption_id
    RETURNING s.*, a.status AS account_status, a.resume_status AS account_resume_status,
        a.balance_minor AS account_balance_minor, a.plan_id AS account_plan_id,
        a.plan_day AS account_plan_day, a.updated_at AS account_updated_at,
        a.usable_at AS account_usable_at
)
SELECT
    c.account_status AS "account_status!",
    c.account_resume_status AS "resume_status!",
    c.account_balance_minor AS "account_balance_minor!",
    c.account_plan_id AS "account_plan_id?",
    c.account_plan_day AS "account_plan_day!",
    c.account_updated_at AS "account_updated_at!",
    c.account_usable_at AS "account_usable_at?",
    c.redemption_id AS "redemption_id!",
    c.account_id AS "account_id!",
    c.fencing_token AS "fencing_token!",
    c.request_id AS "request_id!",
    c.holder AS "holder!",
    c.state AS "state!",
    c.code_last4 AS "code_last4!",
    c.expected_minor AS "expected_minor?",
    c.expected_learned AS "expected_learned!",
    c.amount_minor AS "amount_minor?",
    c.amount_currency AS "amount_currency?",
    c.provider_ref AS "provider_ref?",
    c.failure_reason AS "failure_reason?",
    c.failure_message AS "failure_message?",
    c.code_spent AS "code_spent?",
    c.resolved_by AS "resolved_by?",
    c.resolution_reason AS "resolution_reason?",
    c.resolution_evidence AS "resolution_evidence?",
    c.attempts AS "attempts!",
    c.last_answer AS "last_answer?",
    c.next_check_at AS "next_check_at?",
    c.created_at AS "created_at!",
    c.finished_at AS "finished_at?"
FROM credited c
