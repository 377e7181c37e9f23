-- Records that a reversal had no effect: nothing was sent, or a person says so. No row: it is not as it was seen.
-- $1 pool_id, $2 redemption id, $3 which of its reversals, $4 the state that it must be in, $5 what was answered (null:
-- as it is), $6 who says so, $7 why, $8 the evidence, $9 who as authentication found it, $10 from
-- where; -- null where nobody does.
WITH failed AS (
    UPDATE reversals v
    SET state = 'FAILED',
        last_answer = COALESCE($5, v.last_answer),
        resolved_by = $6,
        resolved_principal = $9,
        resolution_reason = $7,
        resolution_evidence = $8,
        next_check_at = NULL,
        updated_at = now(),
        finished_at = now()
    WHERE v.pool_id = $1
      AND v.redemption_id = $2
      AND v.number = $3
      AND v.state = $4
      AND v.finished_at IS NULL
    RETURNING v.number
),
audited AS (
    INSERT INTO audit_events (pool_id, principal, peer, action, subject, before, after, reason)
    SELECT
        $1, $9, COALESCE($10, ''), 'ReverseRedemption', ($2::uuid)::text,
        jsonb_build_object('reversal', f.number, 'state', $4::text),
        jsonb_build_object('reversal', f.number, 'state', 'FAILED'), $7
    FROM failed f
    WHERE $9::text IS NOT NULL
)
SELECT f.number AS "number!" FROM failed f
