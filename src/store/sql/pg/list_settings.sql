-- Of no pool: settings of the database, as this connection has them; durations of whole seconds in seconds, with an s. $1:
-- their names. One that is not there, or that the role may not see, is missing.
SELECT
    s.name AS "name!",
    CASE WHEN s.unit = 'ms' AND s.setting LIKE '%000' THEN left(s.setting, -3) || 's' ELSE s.setting END AS "setting!"
FROM pg_settings s
WHERE s.name = ANY ($1)
