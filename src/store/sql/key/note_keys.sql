-- Of no pool: notes which secret keys a server has read, and which it uses. Its beat makes its row.
-- $1 the server's id, $2 the keys' ids.
UPDATE servers s
SET key_ids = $2::int[]
WHERE s.server_id = $1 AND s.key_ids IS DISTINCT FROM $2::int[]
