-- Of no pool: makes a token. No row when one has its name already, a revoked one too.
-- $1 the name, $2 the hash of its secret, $3 the roles, $4 the pools of each, $5 who makes it, $6 for how long; null: for
-- good.
INSERT INTO tokens AS t (name, secret_hash, roles, pools, created_by, expires_at)
VALUES ($1, $2, $3, $4, $5, now() + $6::interval)
ON CONFLICT DO NOTHING
RETURNING t.name, t.roles, t.pools, t.created_by, t.created_at, t.expires_at, t.revoked_at, t.last_used_at
