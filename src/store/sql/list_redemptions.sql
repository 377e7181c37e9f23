-- A pool's redemptions before $2, newest first, at most $3; of some states ($4), of an account ($5),
-- of the requests from $6 to before $7 (a batch), recorded from $8 to before $9, where they are not
-- null. None is before $10: a range of the key, wide enough for every one that was recorded in that
-- time, so that the rest of the pool is not read.
SELECT
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
    r.finished_at AS "finished_at?"
FROM redemptions r
WHERE r.pool_id = $1
  AND r.redemption_id < $2
  AND r.redemption_id >= $10::uuid
  AND ($4::text[] IS NULL OR r.state = ANY ($4))
  AND ($5::text IS NULL OR r.account_id = $5)
  AND ($6::text IS NULL OR (r.request_id >= $6 AND r.request_id < $7::text))
  AND ($8::timestamptz IS NULL OR r.created_at >= $8)
  AND ($9::timestamptz IS NULL OR r.created_at < $9)
ORDER BY r.redemption_id DESC
LIMIT $3
