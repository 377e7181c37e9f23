-- Of no pool: makes a token, or gives the one of this name another secret and lets it be valid again.
-- $1 the name, $2 the hash of its secret, $3 the roles, $4 the pools of each, $5 who makes it. Answers nothing.
INSERT INTO tokens AS t (name, secret_hash, roles, pools, created_by)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (name) DO UPDATE
SET secret_hash = excluded.secret_hash, roles = excluded.roles, pools = excluded.pools, revoked_at = NULL, expires_at = NULL
