-- Of no pool: a server's beat. The first one makes its row. A row that was removed is made again.
-- $1 the server's id. Answers nothing.
INSERT INTO servers AS s (server_id) VALUES ($1)
ON CONFLICT (server_id) DO UPDATE SET beat = s.beat + 1, beat_at = now()
