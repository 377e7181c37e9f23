-- Of no pool: the servers and their beats, the newest first.
-- $1 how many at the most.
SELECT s.server_id, s.beat
FROM servers s
ORDER BY s.server_id DESC
LIMIT $1
