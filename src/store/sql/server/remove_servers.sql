-- Of no pool: removes servers that have not beaten for long, by the database's clock, and answers how many. One
-- that still lives makes its row again.
-- $1 for how long, $2 how many at the most.
WITH gone AS MATERIALIZED (
    SELECT s.server_id
    FROM servers s
    WHERE s.beat_at < now() - $1::interval
    ORDER BY s.server_id
    LIMIT $2
    FOR NO KEY UPDATE SKIP LOCKED
),
removed AS (
    DELETE FROM servers s
    USING gone g
    WHERE s.server_id = g.server_id AND s.beat_at < now() - $1::interval
    RETURNING s.server_id
)
SELECT count(*) AS "removed!"
FROM removed
