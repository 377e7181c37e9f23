-- Failures of a code that is begun again, under whichever secret key: docs/adr/0062-a-failed-code-goes-along-when-it-is-begun-again.md.

-- A late credit may overturn any of them.
CREATE INDEX redemptions_failed_code ON redemptions (pool_id, code_fingerprint) WHERE state = 'FAILED';

-- As before; and failures of the code get the fingerprint under which it is begun. The provider may yet say that it
-- credited one of them. That is refused where the code is in a living redemption, by the unique index of living codes,
-- which compares fingerprints of one key.
-- The failures are changed before it is asked what lives: one that is credited meanwhile is found by one of the two. One
-- whose row somebody holds is not waited for: the begin is decided again.
CREATE OR REPLACE FUNCTION code_is_free(pool text, key_id integer, key_ids integer[], fingerprints bytea[]) RETURNS bool
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    fingerprint bytea;
    current_fingerprint CONSTANT bytea := fingerprints[array_position(key_ids, code_is_free.key_id)];
BEGIN
    FOREACH fingerprint IN ARRAY fingerprints LOOP
        IF NOT pg_try_advisory_xact_lock(hashtextextended(pool || ' ' || encode(fingerprint, 'hex'), 0)) THEN
            RETURN false;
        END IF;
    END LOOP;
    IF code_is_free.key_id IS DISTINCT FROM (SELECT i.current_key FROM installation i)
        OR EXISTS (SELECT FROM secret_keys s WHERE s.key_id <> ALL (key_ids))
    THEN
        RETURN false;
    END IF;
    WITH held AS MATERIALIZED (
        SELECT r.redemption_id
        FROM redemptions r
        WHERE r.pool_id = pool
          AND r.code_fingerprint = ANY (fingerprints)
          AND r.code_fingerprint <> current_fingerprint
          AND r.state = 'FAILED'
        ORDER BY r.redemption_id
        FOR NO KEY UPDATE SKIP LOCKED
    )
    UPDATE redemptions r
    SET code_fingerprint = current_fingerprint,
        code_fingerprint_key = code_is_free.key_id
    FROM held h
    WHERE r.pool_id = pool AND r.redemption_id = h.redemption_id AND r.state = 'FAILED';
    RETURN NOT EXISTS (
        SELECT FROM redemptions r
        WHERE r.pool_id = pool
          AND r.code_fingerprint = ANY (fingerprints)
          AND r.state IN ('SUBMITTED', 'IN_DOUBT', 'NEEDS_REVIEW', 'SUCCEEDED')
          AND r.reversed_at IS NULL
    ) AND NOT EXISTS (
        SELECT FROM redemptions r
        WHERE r.pool_id = pool
          AND r.code_fingerprint = ANY (fingerprints)
          AND r.code_fingerprint <> current_fingerprint
          AND r.state = 'FAILED'
    );
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
BEGIN
    EXECUTE format(
        'ALTER FUNCTION %s.code_is_free(text, integer, integer[], bytea[]) SET search_path = pg_catalog, %s, pg_temp',
        home, home
    );
END
$migration$;
