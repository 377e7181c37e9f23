-- The code of a redemption, encrypted; null once it is settled.
SELECT r.code_ciphertext
FROM redemptions r
WHERE r.pool_id = $1 AND r.redemption_id = $2
