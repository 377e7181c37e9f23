-- Redemptions that claim_early_checks.sql would claim, and more. Where it cannot claim all at once, they are tried
-- a few at a time. Changes nothing.
-- $1 pool_id, $2 how many at the most, $3 the servers.
SELECT r.redemption_id AS "redemption_id!"
FROM redemptions r
WHERE r.pool_id = $1
  AND r.state = 'SUBMITTED'
  AND r.next_check_at > now()
  AND (r.early_check_at IS NULL OR r.early_check_at <= now())
  AND r.server_id = ANY ($3::uuid[])
ORDER BY r.next_check_at
LIMIT $2
