-- Waits until nobody holds a redemption, and answers with its state, as get_state.sql does. Changes nothing.
-- $1 pool_id, $2 redemption_id.
SELECT CASE WHEN r.reversed_at IS NULL THEN r.state ELSE 'REVERSED' END AS "state!"
FROM redemptions r
WHERE r.pool_id = $1 AND r.redemption_id = $2
ORDER BY r.redemption_id
FOR NO KEY UPDATE OF r
