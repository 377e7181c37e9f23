-- Of no pool: revokes a token. $1 the name. One that was revoked stays revoked since then: null is not the least. No row: there is none.
UPDATE tokens t
SET revoked_at = least(t.revoked_at, now())
WHERE t.name = $1
RETURNING t.name, t.roles, t.pools, t.created_by, t.created_at, t.expires_at, t.revoked_at, t.last_used_at
