-- A pool's redemptions before $2, newest first, at most $3; of some states ($4), of an account ($5), of the
-- requests from $6 to before $7 (a batch, or one request), recorded from $8 to before $9, with a reversal in one of some states ($12),
-- of one principal or nobody's ($13), that failed for a reason ($14), of a lease's holder ($15), whose code ends so ($16), where they are not null. None is before $10: a range of the key, wide enough for every one that was recorded in that
-- time. So the rest of the pool is not read. A page has at most $11 bytes and one row more: a redemption is not answered where those before it have
-- as many. "more" says of a redemption that another was found after it.
WITH found AS (
    SELECT
        r.*,
        -- 256: what the columns have that are not named here.
        octet_length(concat(
            r.account_id, r.request_id, r.principal, r.holder, r.provider_ref, r.provider_id, r.provider_task,
            r.failure_reason,
            r.failure_message, r.resolved_by, r.resolved_principal, r.resolution_reason, r.resolution_evidence,
            r.last_answer
        )) + 256 AS bytes
    FROM redemptions r
    WHERE r.pool_id = $1
      AND r.redemption_id < $2
      -- Nothing that was recorded before the batch or the request is read, nor after it. min() knows no uuids.
      AND r.redemption_id >= CASE WHEN $6::text IS NULL THEN $10::uuid ELSE COALESCE(
          (
              SELECT min(b.redemption_id::text)::uuid
              FROM redemptions b
              WHERE b.pool_id = $1 AND b.request_id >= $6 AND b.request_id < $7::text
          ),
          'ffffffff-ffff-ffff-ffff-ffffffffffff'
      ) END
      AND r.redemption_id <= CASE WHEN $6::text IS NULL THEN $2::uuid ELSE COALESCE(
          (
              SELECT max(b.redemption_id::text)::uuid
              FROM redemptions b
              WHERE b.pool_id = $1 AND b.request_id >= $6 AND b.request_id < $7::text
          ),
          '00000000-0000-0000-0000-000000000000'
      ) END
      AND r.redemption_id >= $10::uuid
      AND ($4::text[] IS NULL OR r.state = ANY ($4))
      AND ($5::text IS NULL OR r.account_id = $5)
      AND ($6::text IS NULL OR (r.request_id >= $6 AND r.request_id < $7::text))
      AND ($13::text IS NULL OR r.principal IN ('', $13))
      AND ($8::timestamptz IS NULL OR r.created_at >= $8)
      AND ($9::timestamptz IS NULL OR r.created_at < $9)
      AND ($14::text IS NULL OR (r.failure_reason = $14 AND r.state IN ('FAILED', 'NEEDS_REVIEW')))
      AND ($15::text IS NULL OR r.holder = $15)
      AND ($16::text IS NULL OR r.code_last4 = $16)
      AND ($12::text[] IS NULL OR EXISTS (
          SELECT FROM reversals v
          WHERE v.pool_id = $1 AND v.redemption_id = r.redemption_id AND v.state = ANY ($12)
      ))
    ORDER BY r.redemption_id DESC
    LIMIT $3
),
measured AS (
    SELECT
        f.*,
        sum(f.bytes) OVER page - f.bytes AS bytes_before,
        lead(true, 1, false) OVER page AS more
    FROM found f
    WINDOW page AS (ORDER BY f.redemption_id DESC)
)
SELECT
    m.redemption_id, m.account_id, m.fencing_token, m.request_id, m.attempt, m.principal, m.holder, m.state, m.code_last4,
    m.expected_minor,
    m.expected_learned, m.release_on_completion, m.plan_id, m.plan_day, m.amount_minor, m.amount_currency,
    m.provider_ref, m.provider_id, m.provider_version, m.provider_task, m.failure_reason, m.failure_message,
    m.code_spent, m.resolved_by, m.resolved_principal, m.resolution_reason, m.resolution_evidence, m.attempts,
    m.last_answer, m.superseded,
    m.next_check_at, m.created_at, m.finished_at, m.reversed_at, m.more AS "more!"
FROM measured m
WHERE m.bytes_before < $11::bigint
ORDER BY m.redemption_id DESC
