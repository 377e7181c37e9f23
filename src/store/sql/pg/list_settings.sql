-- Of no pool: settings of the database, as this connection has them; durations are in milliseconds. $1: their names. One
-- that is not there, or that the role may not see, is missing.
SELECT s.name AS "name!", s.setting AS "setting!"
FROM pg_settings s
WHERE s.name = ANY ($1)
