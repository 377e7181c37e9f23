-- Defer, shape (a): the outcomes of redemptions stay unknown for now. Each keeps what was answered
-- and when to check next. One that a person must review is not checked again, and never
-- goes back to doubt.
-- $1 pool_id; one element for each: $2 redemption ids, $3 states (IN_DOUBT or NEEDS_REVIEW),
-- $4 what was answered, $5 until the next check (null: none), $6 calls made since the last record,
-- $7 whether the provider did not know the key, $8 amounts credited, $9 their currencies,
-- $10 provider refs, $11 failure reasons, $12 failure messages, $13 whether the code is spent,
-- $14 checks up to this one, $15 how many odd answers count from now on. A server that was overtaken does not hurry the one that checks now.
-- What the provider did (a review with its ref) is kept also where a person reviews it already.
WITH doubt AS MATERIALIZED (
    SELECT d.*
    FROM unnest(
        $2::uuid[], $3::text[], $4::text[], $5::interval[], $6::int[], $7::bool[], $8::bigint[],
        $9::text[], $10::text[], $11::text[], $12::text[], $13::bool[], $14::int[], $15::int[]
    ) AS d (
        redemption_id, state, answer, next_check, attempts, not_found, amount_minor,
        amount_currency, provider_ref, failure_reason, failure_message, code_spent,
        checks, odd_checks
    )
),
locked AS MATERIALIZED (
    SELECT d.*
    FROM doubt d
    JOIN redemptions r ON r.pool_id = $1 AND r.redemption_id = d.redemption_id
    WHERE r.pool_id = $1
      -- Not by the states that are open: one row after the other is looked up by its key.
      AND r.finished_at IS NULL
      AND (
          (r.state <> 'NEEDS_REVIEW' AND (d.state = 'NEEDS_REVIEW' OR r.checks = d.checks))
          OR (r.state = 'NEEDS_REVIEW' AND d.state = 'NEEDS_REVIEW' AND d.provider_ref IS NOT NULL)
      )
    ORDER BY r.redemption_id
    FOR NO KEY UPDATE OF r
),
deferred AS (
    UPDATE redemptions r
    SET state = d.state,
        last_answer = d.answer,
        next_check_at = ((now() AT TIME ZONE 'utc') + d.next_check) AT TIME ZONE 'utc',
        checked_until = NULL,
        attempts = r.attempts + d.attempts,
        not_found_checks = CASE WHEN d.not_found THEN r.not_found_checks + 1 ELSE 0 END,
        odd_checks = d.odd_checks,
        amount_minor = COALESCE(d.amount_minor, r.amount_minor),
        amount_currency = COALESCE(d.amount_currency, r.amount_currency),
        provider_ref = COALESCE(d.provider_ref, r.provider_ref),
        failure_reason = d.failure_reason,
        failure_message = d.failure_message,
        code_spent = d.code_spent,
        updated_at = now()
    FROM locked d
    WHERE r.pool_id = $1
      AND r.redemption_id = d.redemption_id
      AND r.finished_at IS NULL
      AND (
          (r.state <> 'NEEDS_REVIEW' AND (d.state = 'NEEDS_REVIEW' OR r.checks = d.checks))
          OR (r.state = 'NEEDS_REVIEW' AND d.state = 'NEEDS_REVIEW' AND d.provider_ref IS NOT NULL)
      )
    RETURNING r.*
)
SELECT
    x.redemption_id, x.account_id, x.fencing_token, x.request_id, x.attempt, x.principal, x.holder, x.state, x.code_last4,
    x.expected_minor,
    x.expected_learned, x.release_on_completion, x.plan_id, x.plan_day, x.amount_minor, x.amount_currency,
    x.provider_ref, x.provider_id, x.provider_version, x.provider_task, x.failure_reason, x.failure_message,
    x.code_spent, x.resolved_by, x.resolved_principal, x.resolution_reason, x.resolution_evidence, x.attempts,
    x.last_answer, x.superseded,
    x.next_check_at, x.created_at, x.finished_at, x.reversed_at
FROM deferred x
