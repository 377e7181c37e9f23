-- Which pools may have a lease to end. Of all pools. It may fail while a node of a distributed database
-- is down, and the sweeper then asks the pools that it knows one by one.
-- $1 whose time passed no longer ago than this; null: however long ago.
SELECT DISTINCT l.pool_id AS "pool_id!"
FROM leases l
WHERE l.expires_at <= now()
  AND l.expires_at >= COALESCE(now() - $1::interval, '-infinity')
