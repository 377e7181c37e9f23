-- Redemptions by their ids.
SELECT
    r.redemption_id, r.account_id, r.fencing_token, r.request_id, r.attempt, r.principal, r.holder, r.state, r.code_last4,
    r.expected_minor,
    r.expected_learned, r.release_on_completion, r.plan_id, r.plan_day, r.amount_minor, r.amount_currency,
    r.provider_ref, r.provider_id, r.provider_version, r.provider_task, r.failure_reason, r.failure_message,
    r.code_spent, r.resolved_by, r.resolved_principal, r.resolution_reason, r.resolution_evidence, r.attempts,
    r.last_answer, r.superseded,
    r.next_check_at, r.created_at, r.finished_at, r.reversed_at
FROM redemptions r
WHERE r.pool_id = $1 AND r.redemption_id = ANY ($2::uuid[])
