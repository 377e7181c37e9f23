-- Which backend serves this connection, and since when: a name for it that no other ever has. Of no pool.
SELECT s.pid AS "pid!", s.backend_start AS "since!"
FROM pg_stat_activity s
WHERE s.pid = pg_backend_pid()
