-- Of no pool: the latest time that a server's beat was written at, in milliseconds since 1970; null where there was none.
SELECT (extract(epoch FROM max(s.beat_at)) * 1000)::bigint AS "written_ms?"
FROM servers AS s
