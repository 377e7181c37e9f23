-- Of no pool: revokes a token, and records who did. One that was revoked stays revoked since then: null is not the least.
-- No row: there is none. $1 the name, $2 who revokes it, $3 from where.
WITH old AS (
    SELECT t.name, t.revoked_at FROM tokens t WHERE t.name = $1
),
revoked AS (
    UPDATE tokens t
    SET revoked_at = least(t.revoked_at, now())
    FROM old o
    WHERE t.name = o.name
    RETURNING t.*, o.revoked_at IS NULL AS is_change
),
audited AS (
    INSERT INTO audit_events (principal, peer, action, subject, before, after)
    SELECT
        $2, $3, 'RevokeToken', r.name, jsonb_build_object('revoked_at', NULL),
        jsonb_build_object('revoked_at', r.revoked_at)
    FROM revoked r
    WHERE r.is_change
    RETURNING subject
)
SELECT
    r.name AS "name!", r.roles AS "roles!", r.pools AS "pools!", r.created_by AS "created_by!",
    r.created_at AS "created_at!", r.expires_at AS "expires_at?", r.revoked_at AS "revoked_at?",
    r.last_used_at AS "last_used_at?", a.subject IS NOT NULL AS "is_change!"
FROM revoked r
LEFT JOIN audited a ON a.subject = r.name
