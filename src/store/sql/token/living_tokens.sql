-- Of no pool: the tokens that are valid, at most $1, with the time until each expires; null: it does not.
SELECT t.name, t.secret_hash, t.roles, t.pools, t.expires_at - now() AS expires_in
FROM tokens t
WHERE t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > now())
ORDER BY t.name
LIMIT $1
