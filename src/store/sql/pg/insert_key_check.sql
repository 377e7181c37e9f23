-- Keeps the check value of the first secret key that was used here. Of no pool.
INSERT INTO installation (key_check) VALUES ($1) ON CONFLICT DO NOTHING
