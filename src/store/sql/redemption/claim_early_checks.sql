-- Claim early checks, shape (a): redemptions in progress on dead servers are the caller's to look up, until the hold
-- is over. The hold grows with the redemption's age, so that it is looked up ever less often. Nothing else of the
-- row changes, because its sender may live: it stays SUBMITTED, with its next check as begin.sql wrote it.
-- $1 pool_id, $2 how many at the most, $3 the servers, $4 the shortest hold, $5 the longest; $6 redemption ids,
-- $7 whether only these are meant, or all but these. One that is due for a check is claim_checks.sql's.
WITH due AS MATERIALIZED (
    SELECT r.redemption_id
    FROM redemptions r
    WHERE r.pool_id = $1
      AND r.state = 'SUBMITTED'
      AND r.next_check_at > now()
      AND (r.early_check_at IS NULL OR r.early_check_at <= now())
      AND r.server_id = ANY ($3::uuid[])
      AND (r.redemption_id = ANY ($6::uuid[])) = $7::boolean
    ORDER BY r.next_check_at
    LIMIT $2
    FOR NO KEY UPDATE OF r SKIP LOCKED
),
claimed AS (
    UPDATE redemptions r
    SET early_check_at = (
        (now() AT TIME ZONE 'utc') + LEAST(GREATEST((now() - r.created_at) / 2, $4::interval), $5::interval)
    ) AT TIME ZONE 'utc'
    FROM due d
    WHERE r.pool_id = $1
      AND r.redemption_id = d.redemption_id
      -- Not by the states that are open: one row after the other is looked up by its key.
      AND r.finished_at IS NULL
      AND r.next_check_at > now()
      AND (r.early_check_at IS NULL OR r.early_check_at <= now())
    RETURNING r.*
)
SELECT
    x.redemption_id, x.account_id, x.fencing_token, x.request_id, x.attempt, x.principal, x.holder, x.state, x.code_last4,
    x.expected_minor,
    x.expected_learned, x.release_on_completion, x.plan_id, x.plan_day, x.amount_minor, x.amount_currency,
    x.provider_ref, x.provider_id, x.provider_version, x.provider_task, x.failure_reason, x.failure_message,
    x.code_spent, x.resolved_by, x.resolved_principal, x.resolution_reason, x.resolution_evidence, x.attempts,
    x.last_answer, x.superseded,
    x.next_check_at, x.created_at, x.finished_at, x.reversed_at, x.code_ciphertext AS "code_ciphertext!", x.not_after,
    x.server_id AS "server_id!", x.early_check_at - now() AS "hold!"
FROM claimed x
