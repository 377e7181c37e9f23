-- Of no pool: makes the row of a provider's limits, unless it is there.
-- $1 the provider. Answers nothing.
INSERT INTO provider_limits AS l (provider_id) VALUES ($1)
ON CONFLICT (provider_id) DO NOTHING
