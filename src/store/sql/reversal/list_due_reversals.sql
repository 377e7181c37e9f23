-- Reversals whose check is due. Of all pools. Changes nothing.
-- $1 how many at the most.
SELECT v.pool_id, v.redemption_id, v.number
FROM reversals v
WHERE v.state IN ('REQUESTED', 'IN_DOUBT') AND v.next_check_at <= now()
ORDER BY v.next_check_at
LIMIT $1
