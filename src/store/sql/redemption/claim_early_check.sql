-- Claim one early check, shape (a): a redemption that its provider called about is the caller's to look up, until the
-- hold is over. As in claim_early_checks.sql nothing else of the row changes, because its sender may be at work on it: one
-- that is being sent stays SUBMITTED. Not one that a server checks now, nor one whose check comes due within the hold: a check may send again, cancel or reverse, and what a look-up
-- beside it is told may be true no longer when it is recorded.
-- $1 pool_id, $2 redemption id, $3 the hold. No row: it is not the caller's.
UPDATE redemptions r
SET early_check_at = now() + $3::interval
WHERE r.pool_id = $1
  AND r.redemption_id = $2
  -- Not by the states that are open: one row is looked up by its key.
  AND r.finished_at IS NULL
  AND r.state <> 'NEEDS_REVIEW'
  AND r.next_check_at > now() + $3::interval
  AND (r.checked_until IS NULL OR r.checked_until <= now())
  AND (r.early_check_at IS NULL OR r.early_check_at <= now())
RETURNING
    r.redemption_id, r.account_id, r.fencing_token, r.request_id, r.attempt, r.principal, r.holder, r.state, r.code_last4,
    r.expected_minor,
    r.expected_learned, r.release_on_completion, r.plan_id, r.plan_day, r.amount_minor, r.amount_currency,
    r.provider_ref, r.provider_id, r.provider_version, r.provider_task, r.failure_reason, r.failure_message,
    r.code_spent, r.resolved_by, r.resolved_principal, r.resolution_reason, r.resolution_evidence, r.attempts,
    r.last_answer, r.superseded,
    r.next_check_at, r.created_at, r.finished_at, r.reversed_at, r.code_ciphertext AS "code_ciphertext!", r.not_after,
    r.server_id AS "server_id!", $3::interval AS "hold!"
