-- Which redemption has a key that is shorter than its id. Of no pool, as the keys are.
-- $1 provider id, $2 the key.
SELECT k.redemption_id
FROM provider_keys k
WHERE k.provider_id = $1 AND k.key = $2
