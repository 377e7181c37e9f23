-- The newest reversal of each of some redemptions that have one.
-- $1 pool_id, $2 redemption ids.
SELECT DISTINCT ON (v.redemption_id)
    v.redemption_id, v.number, v.state, v.reversed_by, v.principal, v.reason, v.evidence, v.resolved_by,
    v.resolved_principal, v.resolution_reason,
    v.resolution_evidence, v.attempts, v.last_answer, v.next_check_at, v.created_at, v.finished_at
FROM reversals v
WHERE v.pool_id = $1 AND v.redemption_id = ANY ($2::uuid[])
ORDER BY v.redemption_id, v.number DESC
