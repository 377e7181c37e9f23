-- Claim, shape (a): redemptions whose check is due are the caller's to check, until the hold is over. Two
-- reconcilers never act on one at once. One that was still SUBMITTED has lost its server: it is in doubt.
-- $1 pool_id, $2 how many at the most, $3 how long the caller may take, $4 that came due no longer ago than this;
-- null: however long ago; $5 redemption ids, $6 whether only these are meant, or all but these.
WITH due AS MATERIALIZED (
    SELECT r.redemption_id
    FROM redemptions r
    WHERE r.pool_id = $1
      AND r.state IN ('SUBMITTED', 'IN_DOUBT')
      AND r.next_check_at <= now()
      AND r.next_check_at >= COALESCE(now() - $4::interval, '-infinity')
      AND (r.redemption_id = ANY ($5::uuid[])) = $6::boolean
    ORDER BY r.next_check_at
    LIMIT $2
    FOR NO KEY UPDATE OF r SKIP LOCKED
),
claimed AS (
    UPDATE redemptions r
    SET state = 'IN_DOUBT',
        checks = r.checks + 1,
        next_check_at = now() + $3::interval,
        checked_until = now() + $3::interval,
        updated_at = now()
    FROM due d
    WHERE r.pool_id = $1
      AND r.redemption_id = d.redemption_id
      -- Not by the states that are open: one row after the other is looked up by its key.
      AND r.finished_at IS NULL
      AND r.next_check_at <= now()
    RETURNING r.*
)
SELECT
    x.redemption_id, x.account_id, x.fencing_token, x.request_id, x.attempt, x.principal, x.holder, x.state, x.code_last4,
    x.expected_minor,
    x.expected_learned, x.release_on_completion, x.plan_id, x.plan_day, x.amount_minor, x.amount_currency,
    x.provider_ref, x.provider_id, x.provider_version, x.provider_task, x.failure_reason, x.failure_message,
    x.code_spent, x.resolved_by, x.resolved_principal, x.resolution_reason, x.resolution_evidence, x.attempts,
    x.last_answer, x.superseded,
    x.next_check_at, x.created_at, x.finished_at, x.reversed_at, x.code_ciphertext AS "code_ciphertext!",
    x.not_after, x.checks,
    x.not_found_checks, x.odd_checks, x.sent_again_at, now() AS "db_now!"
FROM claimed x
