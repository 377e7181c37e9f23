-- Of no pool: keeps a version of a provider's profile. No row when that version is there already, whatever it says.
-- $1 the provider, $2 the version, $3 the file, $4 who applies it, $5 from where.
WITH was AS MATERIALIZED (
    SELECT max(p.version) AS version FROM providers p WHERE p.provider_id = $1
),
applied AS (
    INSERT INTO providers AS p (provider_id, version, profile)
    VALUES ($1, $2, $3)
    ON CONFLICT DO NOTHING
    RETURNING p.*
),
audited AS (
    INSERT INTO audit_events (principal, peer, action, subject, before, after)
    SELECT
        $4, $5, 'ApplyProvider', c.provider_id,
        CASE WHEN w.version IS NOT NULL THEN jsonb_build_object('version', w.version) END,
        jsonb_build_object('version', c.version)
    FROM applied c
    CROSS JOIN was w
    RETURNING subject, before, after
)
SELECT
    c.provider_id AS "provider_id!", c.version AS "version!", c.profile AS "profile!", c.applied_at AS "applied_at!",
    a.before AS "before?", a.after AS "after?"
FROM applied c
LEFT JOIN audited a ON a.subject IS NOT NULL
