-- Redemptions that claim_checks.sql would claim, and more. Where it cannot claim all at once, they are tried a few
-- at a time. Changes nothing.
-- $1 pool_id, $2 how many at the most.
SELECT r.redemption_id AS "redemption_id!"
FROM redemptions r
WHERE r.pool_id = $1 AND r.state IN ('SUBMITTED', 'IN_DOUBT') AND r.next_check_at <= now()
ORDER BY r.next_check_at
LIMIT $2
