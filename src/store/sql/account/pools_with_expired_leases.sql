-- Which pools have a lease to end. Of all pools. It may fail while a node of a distributed database
-- is down, and the sweeper then asks the pools that it knows one by one.
-- $1 whose time passed no longer ago than this; null: however long ago.
SELECT DISTINCT a.pool_id AS "pool_id!"
FROM accounts a
WHERE a.lease_request_id >= ''
  AND a.status = 'LOCKING'
  AND a.open_redemption_id IS NULL
  AND a.lease_expires_at <= now()
  AND a.lease_expires_at >= COALESCE(now() - $1::interval, '-infinity')
