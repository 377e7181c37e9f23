-- Of no pool: the pools with redemptions in progress on servers that are dead, or whose row is gone, and those
-- servers. Only where an early check is due, and only while the send window lasts: after that it is
-- claim_checks.sql that finds them.
-- $1 the servers that are judged dead.
SELECT DISTINCT r.pool_id AS "pool_id!", r.server_id AS "server_id!"
FROM redemptions r
LEFT JOIN servers s ON s.server_id = r.server_id
WHERE r.state = 'SUBMITTED'
  AND r.next_check_at > now()
  AND (r.early_check_at IS NULL OR r.early_check_at <= now())
  AND r.server_id IS NOT NULL
  AND (r.server_id = ANY ($1::uuid[]) OR s.server_id IS NULL)
