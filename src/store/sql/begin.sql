-- Begin, shape (b): redemptions are recorded, each under its lease, before anything is sent. The
-- trigger on the table marks each on its account.
-- $1 pool_id; one element for each redemption: $2 redemption ids, $3 account ids, $4 fencing tokens,
-- $5 request ids, $6 whether to release on completion, $7 code fingerprints, $8 code ciphertexts,
-- $9 last four characters, $10 expected amounts in minor units, $13 whether those were learned;
-- $11 how long the provider may begin it, $12 when the reconciler takes over if nobody has settled it.
-- An account that rests, or whose plan would not take the amount, is not redeemed into: its plan may
-- have changed since it was acquired, and another redemption may have filled it under this very lease.
-- Locks the accounts in their order. ON CONFLICT: the request or the code is there already, or
-- another redemption of this very statement has the account. An input without a row in the answer
-- is explained by explain_begin.sql.
INSERT INTO redemptions AS r (
    pool_id, redemption_id, account_id, fencing_token, request_id, holder, state,
    release_on_completion, code_fingerprint, code_ciphertext, code_last4, expected_minor,
    expected_learned, plan_id, plan_day, not_after, next_check_at
)
SELECT
    $1, w.redemption_id, a.account_id, a.fencing_token, w.request_id, a.holder, 'SUBMITTED',
    w.release_on_completion, w.code_fingerprint, w.code_ciphertext, w.code_last4, w.expected_minor,
    w.expected_learned, a.plan_id, CASE WHEN a.plan_id IS NOT NULL THEN a.plan_day END,
    now() + $11::interval, now() + $12::interval
FROM unnest(
    $2::uuid[], $3::text[], $4::bigint[], $5::text[], $6::bool[],
    $7::bytea[], $8::bytea[], $9::text[], $10::bigint[], $13::bool[]
) AS w (
    redemption_id, account_id, token, request_id, release_on_completion,
    code_fingerprint, code_ciphertext, code_last4, expected_minor, expected_learned
)
JOIN accounts a ON a.pool_id = $1 AND a.account_id = w.account_id
LEFT JOIN plans n ON n.pool_id = $1 AND n.plan_id = a.plan_id
WHERE a.pool_id = $1
  AND a.status = 'LOCKING'
  AND a.fencing_token = w.token
  AND a.lease_expires_at > now()
  AND a.open_redemption_id IS NULL
  AND NOT a.release_requested
  AND NOT a.paused
  AND (a.usable_at IS NULL OR a.usable_at <= now())
  AND (n.plan_id IS NULL OR plan_misfit(
      w.expected_minor, a.balance_minor, a.plan_day, a.day_credited_minor,
      n.target_minor, n.day_amounts_minor, n.day_tolerance_minor,
      n.smallest_minor, n.largest_minor, n.step_minor, n.fixed_minor, n.least_steps
  ) IS NULL)
  AND EXISTS (SELECT FROM pools p WHERE p.pool_id = $1 AND NOT p.paused)
ORDER BY a.account_id
FOR NO KEY UPDATE OF a
ON CONFLICT DO NOTHING
RETURNING
    r.redemption_id AS "redemption_id!",
    r.account_id AS "account_id!",
    r.fencing_token AS "fencing_token!",
    r.request_id AS "request_id!",
    r.holder AS "holder!",
    r.state AS "state!",
    r.code_last4 AS "code_last4!",
    r.expected_minor AS "expected_minor?",
    r.expected_learned AS "expected_learned!",
    r.amount_minor AS "amount_minor?",
    r.amount_currency AS "amount_currency?",
    r.provider_ref AS "provider_ref?",
    r.failure_reason AS "failure_reason?",
    r.failure_message AS "failure_message?",
    r.code_spent AS "code_spent?",
    r.resolved_by AS "resolved_by?",
    r.resolution_reason AS "resolution_reason?",
    r.resolution_evidence AS "resolution_evidence?",
    r.attempts AS "attempts!",
    r.last_answer AS "last_answer?",
    r.next_check_at AS "next_check_at?",
    r.created_at AS "created_at!",
    r.finished_at AS "finished_at?",
    r.not_after AS "not_after!"
