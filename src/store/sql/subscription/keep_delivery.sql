-- Keeps a delivery that was not taken, to be tried again, or as a dead letter. One that is kept already stays as it is. No
-- row where it is, or where the claim is not the server's any more.
-- $1 pool_id, $2 subscription_id, $3 the claim, $4 delivery_id, $5 redemption_id, $6 account_id, $7 how often it was tried,
-- $8 what was wrong; $9 until the next try, or else $10 until it is given up: nothing.
INSERT INTO deliveries AS d (
    pool_id, subscription_id, delivery_id, redemption_id, account_id, attempts, last_error, tried_since, last_try_at,
    next_try_at, dead_at
)
SELECT
    $1, s.subscription_id, $4, $5, $6, $7, $8, now(), now(), now() + $9::interval, now() + $10::interval
FROM subscriptions s
WHERE s.pool_id = $1 AND s.subscription_id = $2 AND s.claim = $3
ON CONFLICT DO NOTHING
RETURNING d.delivery_id
