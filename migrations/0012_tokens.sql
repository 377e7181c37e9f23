-- Tokens: what callers show. Of no pool: a token is granted roles on pools, and there are few.

CREATE TABLE tokens (
    name text COLLATE "C" PRIMARY KEY,
    -- SHA-256 of the secret, which is 256 random bits. The secret itself is kept nowhere.
    secret_hash bytea NOT NULL UNIQUE CHECK (octet_length(secret_hash) = 32),
    -- What is granted: the role at each place on the pools at the same place. A pool's id, or its beginning and *.
    roles text[] NOT NULL,
    pools text[] NOT NULL,
    -- The principal that made it.
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    -- Null where it does not expire.
    expires_at timestamptz,
    revoked_at timestamptz,
    -- To the minute. Servers write it now and then, and never for one call.
    last_used_at timestamptz,
    CONSTRAINT tokens_are_granted_something CHECK (
        cardinality(roles) = cardinality(pools) AND cardinality(roles) > 0
    )
);

-- Rises with each change of a token, by a trigger, so that changes by hand are seen too. Servers ask for it, and read
-- the tokens when it has changed. One row.
CREATE TABLE token_changes (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    changes bigint NOT NULL DEFAULT 0
);
INSERT INTO token_changes DEFAULT VALUES;

CREATE FUNCTION count_token_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE token_changes c SET changes = c.changes + 1 WHERE c.only_row;
    RETURN NULL;
END
$$;

DO $migration$
DECLARE
    -- The schema of this installation.
    home CONSTANT text := (
        SELECT quote_ident(n.nspname)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid = 'tokens'::regclass
    );
BEGIN
    EXECUTE format('ALTER FUNCTION %s.count_token_change() SET search_path = pg_catalog, %s, pg_temp', home, home);
END
$migration$;

CREATE TRIGGER tokens_made_or_removed AFTER INSERT OR DELETE ON tokens
    FOR EACH ROW EXECUTE FUNCTION count_token_change();
-- Not when its last use is noted.
CREATE TRIGGER tokens_changed AFTER UPDATE OF name, secret_hash, roles, pools, expires_at, revoked_at ON tokens
    FOR EACH ROW EXECUTE FUNCTION count_token_change();
