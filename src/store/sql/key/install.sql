-- Of no pool: the first server to start keeps the check value of the key that it uses. Answers nothing.
-- $1 the key's id, $2 its check value.
WITH home AS (
    INSERT INTO installation (current_key) VALUES ($1::int) ON CONFLICT DO NOTHING
    RETURNING current_key
)
INSERT INTO secret_keys (key_id, key_check) SELECT h.current_key, $2::bytea FROM home h
