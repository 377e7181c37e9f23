-- Of no pool: makes a token, and records who did. No row when one has its name already, a revoked one too.
-- $1 the name, $2 the hash of its secret, $3 the roles, $4 the pools of each, $5 who makes it, $6 for how long; null: for
-- good; $7 from where.
WITH made AS (
    INSERT INTO tokens AS t (name, secret_hash, roles, pools, created_by, expires_at)
    VALUES ($1, $2, $3, $4, $5, now() + $6::interval)
    ON CONFLICT DO NOTHING
    RETURNING t.*
),
audited AS (
    INSERT INTO audit_events (principal, peer, action, subject, after)
    SELECT
        $5, $7, 'CreateToken', m.name,
        jsonb_build_object('roles', m.roles, 'pools', m.pools, 'expires_at', m.expires_at)
    FROM made m
    RETURNING subject
)
SELECT
    m.name AS "name!", m.roles AS "roles!", m.pools AS "pools!", m.created_by AS "created_by!",
    m.created_at AS "created_at!", m.expires_at AS "expires_at?", m.revoked_at AS "revoked_at?",
    m.last_used_at AS "last_used_at?"
FROM made m
LEFT JOIN audited a ON a.subject = m.name
