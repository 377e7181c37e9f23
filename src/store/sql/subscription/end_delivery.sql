-- Removes a delivery that was taken at last. Those of its account behind it are due then. No row where it is gone.
-- $1 pool_id, $2 subscription_id, $3 delivery_id.
DELETE FROM deliveries d
WHERE d.pool_id = $1 AND d.subscription_id = $2 AND d.delivery_id = $3
