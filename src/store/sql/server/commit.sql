-- Of no pool: a row that is committed to see that rows are. $1 the server's id. It beats once more, if its row is there.
UPDATE servers AS s SET beat = s.beat + 1, beat_at = now() WHERE s.server_id = $1
