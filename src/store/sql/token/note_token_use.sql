-- Of no pool: notes that tokens were used, to the minute. $1 their names. Those that others are noting are left out: it
-- is the same minute. Answers how many were noted.
WITH used AS MATERIALIZED (
    SELECT t.name
    FROM tokens t
    WHERE t.name = ANY ($1::text[])
      AND (t.last_used_at IS NULL OR t.last_used_at < date_trunc('minute', now()))
    ORDER BY t.name
    FOR NO KEY UPDATE SKIP LOCKED
),
noted AS (
    UPDATE tokens t
    SET last_used_at = date_trunc('minute', now())
    FROM used u
    WHERE t.name = u.name
    RETURNING t.name
)
SELECT count(*) AS "noted!"
FROM noted n
