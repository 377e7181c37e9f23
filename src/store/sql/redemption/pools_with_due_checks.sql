-- Which pools have a redemption to check. Of all pools. It may fail while a node of a distributed
-- database is down, and the reconciler then asks the pools that it knows one by one.
-- $1 that came due no longer ago than this; null: however long ago.
SELECT DISTINCT r.pool_id
FROM redemptions r
WHERE r.state IN ('SUBMITTED', 'IN_DOUBT')
  AND r.next_check_at <= now()
  AND r.next_check_at >= COALESCE(now() - $1::interval, '-infinity')
