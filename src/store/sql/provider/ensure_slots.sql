-- Of no pool: makes the places of a kind, unless they are there.
-- $1 the provider, $2 the kind, $3 how many. Answers nothing.
INSERT INTO provider_slots AS s (provider_id, kind, slot)
SELECT $1, $2, n FROM generate_series(0, $3::int - 1) AS n
ON CONFLICT (provider_id, kind, slot) DO NOTHING
