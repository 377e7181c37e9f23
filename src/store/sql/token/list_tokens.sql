-- Of no pool: tokens after the name $1, at most $2, the revoked and expired ones too.
SELECT t.name, t.roles, t.pools, t.created_by, t.created_at, t.expires_at, t.revoked_at, t.last_used_at
FROM tokens t
WHERE t.name > $1
ORDER BY t.name
LIMIT $2
