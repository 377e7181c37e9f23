-- Of no pool: the highest version of each provider's profile, after the provider $1, at most $2. A page has at most $3
-- bytes and one row more: a profile is not answered where those before it have as many. "more" says of a profile that
-- another was found after it.
WITH found AS (
    SELECT DISTINCT ON (p.provider_id)
        p.*,
        octet_length(p.profile) AS bytes
    FROM providers p
    WHERE p.provider_id > $1
    ORDER BY p.provider_id, p.version DESC
    LIMIT $2
),
measured AS (
    SELECT
        f.*,
        sum(f.bytes) OVER page - f.bytes AS bytes_before,
        lead(true, 1, false) OVER page AS more
    FROM found f
    WINDOW page AS (ORDER BY f.provider_id)
)
SELECT
    m.provider_id AS "provider_id!",
    m.version AS "version!",
    m.profile AS "profile!",
    m.applied_at AS "applied_at!",
    m.more AS "more!"
FROM measured m
WHERE m.bytes_before < $3::bigint
ORDER BY m.provider_id
