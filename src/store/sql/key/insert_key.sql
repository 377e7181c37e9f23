-- Of no pool: keeps the check value of a key that is to become current. One that is there stays as it is.
-- $1 the key's id, $2 its check value.
INSERT INTO secret_keys (key_id, key_check) VALUES ($1, $2) ON CONFLICT DO NOTHING
