-- The state of a redemption; REVERSED is a success that was taken back. $1 pool_id, $2 redemption_id.
SELECT CASE WHEN r.reversed_at IS NULL THEN r.state ELSE 'REVERSED' END AS "state!" FROM redemptions r WHERE r.pool_id = $1 AND r.redemption_id = $2
