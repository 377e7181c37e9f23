-- Of no pool: takes a key of a provider for a redemption. No row: another redemption has it.
-- $1 provider id, $2 the key, $3 redemption id.
INSERT INTO provider_keys (provider_id, key, redemption_id)
VALUES ($1, $2, $3)
ON CONFLICT DO NOTHING
RETURNING redemption_id
