-- Claims a reversal whose check is due, until the hold is over. Two reconcilers never act on one at once. One that was
-- still REQUESTED has lost its server: it is in doubt. By itself, so that one that cannot be written holds up no other.
-- $1 pool_id, $2 redemption id, $3 which of its reversals, $4 how long the caller may take.
UPDATE reversals v
SET state = 'IN_DOUBT',
    checks = v.checks + 1,
    next_check_at = now() + $4::interval,
    updated_at = now()
WHERE v.pool_id = $1
  AND v.redemption_id = $2
  AND v.number = $3
  AND v.state IN ('REQUESTED', 'IN_DOUBT')
  AND v.next_check_at <= now()
RETURNING
    v.redemption_id, v.number, v.state, v.reversed_by, v.principal, v.reason, v.evidence, v.resolved_by,
    v.resolved_principal, v.resolution_reason,
    v.resolution_evidence, v.attempts, v.last_answer, v.next_check_at, v.created_at, v.finished_at, v.checks,
    v.updated_at
