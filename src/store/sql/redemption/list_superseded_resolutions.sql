-- The resolutions of a redemption that were corrected, in their order.
-- $1 pool_id, $2 redemption id.
SELECT
    u.number, u.state, u.amount_minor, u.amount_currency, u.code_spent, u.resolved_by, u.resolved_principal, u.reason,
    u.evidence, u.finished_at, u.superseded_at
FROM superseded_resolutions u
WHERE u.pool_id = $1 AND u.redemption_id = $2
ORDER BY u.number
