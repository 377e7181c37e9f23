-- Of no pool: a key that is to become current, again or for the first time, is needed in every key file.
-- $1 the key's id.
UPDATE secret_keys s
SET retired_at = NULL, kept_by = NULL, kept = NULL
WHERE s.key_id = $1
