-- Resolutions that a person corrected: what was recorded before, and by whom. The redemption has the one that counts. Only
-- added, and never deleted.

-- How many of a redemption's resolutions were corrected.
ALTER TABLE redemptions ADD COLUMN superseded integer DEFAULT 0 NOT NULL;

CREATE TABLE superseded_resolutions (
    pool_id text COLLATE "C" NOT NULL,
    redemption_id uuid NOT NULL,
    -- Which of the redemption's resolutions it was, counted from 1.
    number integer NOT NULL CHECK (number > 0),
    -- What it had recorded.
    state text COLLATE "C" NOT NULL CHECK (state IN ('SUCCEEDED', 'FAILED')),
    amount_minor bigint,
    amount_currency text COLLATE "C",
    code_spent boolean,
    -- Who had said so, why, and by what evidence; null where none was named.
    resolved_by text NOT NULL,
    resolved_principal text NOT NULL DEFAULT '',
    reason text NOT NULL,
    evidence text,
    -- When it was recorded, and when the next one was.
    finished_at timestamptz NOT NULL,
    superseded_at timestamptz NOT NULL DEFAULT now(),

    PRIMARY KEY (pool_id, redemption_id, number)
);

CREATE TRIGGER superseded_resolutions_append_only BEFORE UPDATE OR DELETE ON superseded_resolutions
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
