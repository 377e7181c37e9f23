-- The state of a redemption. $1 pool_id, $2 redemption_id.
SELECT r.state AS "state!" FROM redemptions r WHERE r.pool_id = $1 AND r.redemption_id = $2
