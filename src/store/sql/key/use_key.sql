-- Of no pool: makes a key the current one.
-- $1 the key's id.
UPDATE installation i
SET current_key = $1
WHERE i.current_key <> $1
