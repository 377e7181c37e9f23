-- Credentials of accounts, which templates of profiles name.

-- Not a column of accounts, whose rows are narrow and change with every lease. Written when the account is created or a
-- person changes them, and read before something is sent whose profile names them.
CREATE TABLE account_credentials (
    pool_id text COLLATE "C" NOT NULL,
    account_id text COLLATE "C" NOT NULL,
    -- All of them, encrypted under pool and account.
    credentials bytea NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (pool_id, account_id)
);

-- As before, and credentials go with their account. No foreign key does so: the key of accounts has a part of the token.
CREATE OR REPLACE FUNCTION account_keep_redemptions() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM redemptions r WHERE r.pool_id = OLD.pool_id AND r.account_id = OLD.account_id
    ) THEN
        RAISE foreign_key_violation USING
            MESSAGE = format('account %s of pool %s has redemptions', OLD.account_id, OLD.pool_id);
    END IF;
    DELETE FROM leases WHERE pool_id = OLD.pool_id AND request_id = OLD.lease_request_id;
    DELETE FROM account_credentials WHERE pool_id = OLD.pool_id AND account_id = OLD.account_id;
    PERFORM note_change_by_hand(OLD.pool_id, OLD.account_id);
    RETURN OLD;
END
$$;

DO $migration$
DECLARE
    -- The schema of this installation.
    home CONSTANT text := (
        SELECT quote_ident(n.nspname)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid = 'account_credentials'::regclass
    );
BEGIN
    -- A function that is replaced loses its settings.
    EXECUTE format(
        'ALTER FUNCTION %s.account_keep_redemptions() SET search_path = pg_catalog, %s, pg_temp', home, home
    );
END
$migration$;
