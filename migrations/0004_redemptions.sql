-- Redemptions: recorded before they are sent, settled once, never deleted.

CREATE TABLE redemptions (
    pool_id text COLLATE "C" NOT NULL,
    -- Also the provider's idempotency key. UUIDv7: newest first is the order of the key, descending.
    redemption_id uuid NOT NULL,
    account_id text COLLATE "C" NOT NULL,
    fencing_token bigint NOT NULL,
    -- A batch's item has 'batch:BATCH_ID:ITEM_ID': a batch is a range of the unique index.
    request_id text COLLATE "C" NOT NULL,
    holder text COLLATE "C" NOT NULL,
    state text COLLATE "C" NOT NULL
        CHECK (state IN ('SUBMITTED', 'IN_DOUBT', 'NEEDS_REVIEW', 'SUCCEEDED', 'FAILED')),
    release_on_completion bool NOT NULL,
    -- The account's plan, and its day there, when the redemption began; null without a plan.
    plan_id text COLLATE "C",
    plan_day int,

    -- Keyed HMAC of the provider and the normalised code: finds duplicates, tells nothing.
    code_fingerprint bytea NOT NULL,
    -- Sent again from here; wiped when the redemption is settled.
    code_ciphertext bytea,
    code_last4 text NOT NULL,
    expected_minor bigint CHECK (expected_minor > 0),
    -- True: the caller named no amount, and the provider told it when it was asked about the card before an account
    -- was chosen. Such an amount is no part of the request: the same request again, without an amount, is answered
    -- with this redemption, whatever the card is worth by then.
    expected_learned bool NOT NULL DEFAULT false,
    -- The provider is not to begin after this time. Stored because it is part of the bytes sent.
    not_after timestamptz NOT NULL,
    -- The server that sends it.
    server_id uuid,

    -- What the provider says that it credited. Its currency differs from the pool's only in a redemption that
    -- NEEDS_REVIEW, or did.
    amount_minor bigint CHECK (amount_minor >= 0),
    amount_currency text COLLATE "C",
    provider_ref text,
    failure_reason text COLLATE "C",
    failure_message text,
    code_spent bool,
    -- A person's decision, why, and what it is based on: the provider's own record, a ticket. Kept for good. Null
    -- where nobody resolved it; the evidence also where the person named none.
    resolved_by text,
    resolution_reason text,
    resolution_evidence text,

    -- Calls to the provider about it.
    attempts integer NOT NULL DEFAULT 0,
    last_answer text,
    -- When it is checked next. Due times are in the row, so any server takes over.
    next_check_at timestamptz,
    -- Checks, and how many of them in a row found that the provider does not have the key.
    checks integer NOT NULL DEFAULT 0,
    not_found_checks integer NOT NULL DEFAULT 0,
    -- No server checks it early before this time: so that one does, and not all. It says nothing about next_check_at.
    early_check_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,

    -- No foreign key to accounts: its check cost a read of the account for each redemption that was begun. The trigger
    -- below costs only a deletion.
    PRIMARY KEY (pool_id, redemption_id),
    CONSTRAINT redemptions_code_is_wiped CHECK (
        (state IN ('SUCCEEDED', 'FAILED')) = (finished_at IS NOT NULL)
        AND (finished_at IS NULL) = (code_ciphertext IS NOT NULL)
    ),
    CONSTRAINT redemptions_success_has_an_amount CHECK (
        state <> 'SUCCEEDED' OR (amount_minor IS NOT NULL AND amount_currency IS NOT NULL)
    )
) WITH (
    fillfactor = 85,
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 10000,
    autovacuum_vacuum_insert_scale_factor = 0.05,
    autovacuum_vacuum_cost_delay = 0
);

-- One redemption a request.
CREATE UNIQUE INDEX redemptions_request ON redemptions (pool_id, request_id);

-- One living redemption a code.
CREATE UNIQUE INDEX redemptions_living_code ON redemptions (pool_id, code_fingerprint)
    WHERE state IN ('SUBMITTED', 'IN_DOUBT', 'NEEDS_REVIEW', 'SUCCEEDED');

-- One open redemption an account.
CREATE UNIQUE INDEX redemptions_open ON redemptions (pool_id, account_id)
    WHERE state IN ('SUBMITTED', 'IN_DOUBT', 'NEEDS_REVIEW');

-- An account's redemptions, for people.
CREATE INDEX redemptions_by_account ON redemptions (pool_id, account_id, redemption_id);

-- Unsettled redemptions of all pools, by when they are checked next. A scan reads what is due since the scan before.
CREATE INDEX redemptions_due ON redemptions (next_check_at, pool_id)
    WHERE state IN ('SUBMITTED', 'IN_DOUBT');

-- An account that has redemptions is not deleted.
CREATE FUNCTION account_keep_redemptions() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM redemptions r WHERE r.pool_id = OLD.pool_id AND r.account_id = OLD.account_id
    ) THEN
        RAISE foreign_key_violation USING
            MESSAGE = format('account %s of pool %s has redemptions', OLD.account_id, OLD.pool_id);
    END IF;
    DELETE FROM leases WHERE pool_id = OLD.pool_id AND request_id = OLD.lease_request_id;
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
        WHERE c.oid = 'redemptions'::regclass
    );
BEGIN
    EXECUTE format(
        'ALTER FUNCTION %s.account_keep_redemptions() SET search_path = pg_catalog, %s, pg_temp', home, home
    );
END
$migration$;

CREATE TRIGGER account_keep_redemptions BEFORE DELETE ON accounts
    FOR EACH ROW EXECUTE FUNCTION account_keep_redemptions();
