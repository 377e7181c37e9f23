-- Secret keys by their ids. The database says which is current: servers change to another together.

CREATE TABLE secret_keys (
    key_id integer PRIMARY KEY CHECK (key_id BETWEEN 1 AND 65535),
    -- Derived from the key. A server whose key of this id gives another value is refused at start.
    key_check bytea NOT NULL,
    -- Since when nothing that is stored is encrypted with it.
    retired_at timestamptz,
    -- What its fingerprints are made with, encrypted with the key `kept_by`: they are found when the key itself is in
    -- no file any more.
    kept_by integer REFERENCES secret_keys,
    kept bytea,
    created_at timestamptz NOT NULL DEFAULT now(),
    CHECK ((kept_by IS NULL) = (kept IS NULL))
);

-- Until now there was one key.
INSERT INTO secret_keys (key_id, key_check) SELECT 1, i.key_check FROM installation i;

ALTER TABLE installation
    DROP COLUMN key_check,
    -- The key that codes and credentials are encrypted with, and that fingerprints are made with.
    ADD COLUMN current_key integer NOT NULL DEFAULT 1 REFERENCES secret_keys;

-- The secret keys that the server has read; null where it is of a version without them.
ALTER TABLE servers ADD COLUMN key_ids integer[];

-- The key that the code's fingerprint was made with.
ALTER TABLE redemptions ADD COLUMN code_fingerprint_key integer NOT NULL DEFAULT 1;

-- The key that something was encrypted with: a first byte of 1 says the first, one of 2 that its id follows.
CREATE FUNCTION key_of(sealed bytea) RETURNS integer LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN length(sealed) > 0 AND get_byte(sealed, 0) = 1 THEN 1
        WHEN length(sealed) > 2 AND get_byte(sealed, 0) = 2 THEN get_byte(sealed, 1) * 256 + get_byte(sealed, 2)
    END
$$;

-- Whether a code may be begun: nobody begins it at this very moment, under whichever key, and it is in no living
-- redemption. Called where there are several keys: with one, the unique index says so.
-- Servers may use different keys for a moment. So the fingerprints of a code by all keys are locked until the
-- statement ends, and only then is it asked what is there. A function that is volatile sees what was committed until it
-- asks, not until its statement began.
CREATE FUNCTION code_is_free(pool text, key_id integer, key_ids integer[], fingerprints bytea[]) RETURNS bool
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    fingerprint bytea;
BEGIN
    FOREACH fingerprint IN ARRAY fingerprints LOOP
        IF NOT pg_try_advisory_xact_lock(hashtextextended(pool || ' ' || encode(fingerprint, 'hex'), 0)) THEN
            RETURN false;
        END IF;
    END LOOP;
    RETURN code_is_free.key_id = (SELECT i.current_key FROM installation i)
        AND NOT EXISTS (SELECT FROM secret_keys s WHERE s.key_id <> ALL (key_ids))
        AND NOT EXISTS (
            SELECT FROM redemptions r
            WHERE r.pool_id = pool
              AND r.code_fingerprint = ANY (fingerprints)
              AND r.state IN ('SUBMITTED', 'IN_DOUBT', 'NEEDS_REVIEW', 'SUCCEEDED')
              AND r.reversed_at IS NULL
        );
END
$$;

-- Credentials are written with the current key alone. A server that does not know yet that it changed is refused, and
-- tries again.
CREATE FUNCTION credentials_check_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF key_of(NEW.credentials) <> (SELECT i.current_key FROM installation i) THEN
        RAISE EXCEPTION 'the secret key % is not current any more', key_of(NEW.credentials) USING ERRCODE = 'HF001';
    END IF;
    RETURN NEW;
END
$$;

DO $migration$
DECLARE
    -- The schema of this installation.
    home CONSTANT text := (
        SELECT quote_ident(n.nspname)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid = 'secret_keys'::regclass
    );
    signature text;
BEGIN
    FOREACH signature IN ARRAY ARRAY['code_is_free(text, integer, integer[], bytea[])', 'credentials_check_key()'] LOOP
        EXECUTE format('ALTER FUNCTION %s.%s SET search_path = pg_catalog, %s, pg_temp', home, signature, home);
    END LOOP;
END
$migration$;

CREATE TRIGGER credentials_check_key BEFORE INSERT OR UPDATE OF credentials ON account_credentials
    FOR EACH ROW EXECUTE FUNCTION credentials_check_key();
