-- Reversals: a person takes back what a success brought. Recorded before the provider is asked, never deleted.

CREATE TABLE reversals (
    pool_id text COLLATE "C" NOT NULL,
    redemption_id uuid NOT NULL,
    -- Counted from 1. One that had no effect is followed by another where somebody asks for it again.
    number integer NOT NULL CHECK (number > 0),
    state text COLLATE "C" NOT NULL
        CHECK (state IN ('REQUESTED', 'IN_DOUBT', 'NEEDS_REVIEW', 'SUCCEEDED', 'FAILED')),
    -- Who asked for it, why, and by what evidence; null where none was named. Kept for good.
    reversed_by text NOT NULL,
    reason text NOT NULL,
    evidence text,
    -- A person's decision about one whose outcome could not be found out. Kept for good. Null where nobody decided.
    resolved_by text,
    resolution_reason text,
    resolution_evidence text,

    -- Calls to the provider about it.
    attempts integer NOT NULL DEFAULT 0,
    last_answer text,
    -- When it is checked next. Due times are in the row, so any server takes over.
    next_check_at timestamptz,
    checks integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,

    PRIMARY KEY (pool_id, redemption_id, number),
    CONSTRAINT reversals_are_finished CHECK (
        (state IN ('SUCCEEDED', 'FAILED')) = (finished_at IS NOT NULL)
    )
);

-- One living reversal a redemption.
CREATE UNIQUE INDEX reversals_living ON reversals (pool_id, redemption_id) WHERE state <> 'FAILED';

-- Unsettled reversals of all pools, by when they are checked next.
CREATE INDEX reversals_due ON reversals (next_check_at, pool_id) WHERE state IN ('REQUESTED', 'IN_DOUBT');

CREATE FUNCTION refuse_deletion() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% are kept for good', TG_TABLE_NAME;
END
$$;

DO $migration$
DECLARE
    -- The schema of this installation.
    home CONSTANT text := (
        SELECT quote_ident(n.nspname)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid = 'reversals'::regclass
    );
BEGIN
    EXECUTE format('ALTER FUNCTION %s.refuse_deletion() SET search_path = pg_catalog, %s, pg_temp', home, home);
END
$migration$;

CREATE TRIGGER reversals_are_kept BEFORE DELETE ON reversals
    FOR EACH ROW EXECUTE FUNCTION refuse_deletion();

-- When a success was taken back. It stays a success of the history, and its code is free again: the card has its
-- value.
ALTER TABLE redemptions ADD COLUMN reversed_at timestamptz;
ALTER TABLE redemptions ADD CONSTRAINT redemptions_reverse_a_success
    CHECK (reversed_at IS NULL OR state = 'SUCCEEDED');

DROP INDEX redemptions_living_code;
CREATE UNIQUE INDEX redemptions_living_code ON redemptions (pool_id, code_fingerprint)
    WHERE state IN ('SUBMITTED', 'IN_DOUBT', 'NEEDS_REVIEW', 'SUCCEEDED') AND reversed_at IS NULL;
