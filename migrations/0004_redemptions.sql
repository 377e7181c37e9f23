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

    -- Keyed HMAC of the provider and the normalised code: finds duplicates, tells nothing.
    code_fingerprint bytea NOT NULL,
    -- Sent again from here; wiped when the redemption is settled.
    code_ciphertext bytea,
    code_last4 text NOT NULL,
    expected_minor bigint CHECK (expected_minor > 0),
    -- The provider is not to begin after this time. Stored because it is part of the bytes sent.
    not_after timestamptz NOT NULL,

    -- What the provider says that it credited; its currency differs from the pool's only in a
    -- redemption that NEEDS_REVIEW, or did.
    amount_minor bigint CHECK (amount_minor >= 0),
    amount_currency text COLLATE "C",
    provider_ref text,
    failure_reason text COLLATE "C",
    failure_message text,
    code_spent bool,
    -- A person's word, kept for good.
    resolved_by text,
    resolution_reason text,

    -- Calls to the provider about it.
    attempts integer NOT NULL DEFAULT 0,
    last_answer text,
    -- When the reconciler looks at it: due times live in the row, so any server takes over.
    next_check_at timestamptz,
    -- Looks by the reconciler, and how many of them in a row found the provider without the key.
    checks integer NOT NULL DEFAULT 0,
    not_found_checks integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,

    PRIMARY KEY (pool_id, redemption_id),
    FOREIGN KEY (pool_id, account_id) REFERENCES accounts (pool_id, account_id),
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

-- One redemption for each wish.
CREATE UNIQUE INDEX redemptions_request ON redemptions (pool_id, request_id);

-- One living redemption for each code.
CREATE UNIQUE INDEX redemptions_living_code ON redemptions (pool_id, code_fingerprint)
    WHERE state IN ('SUBMITTED', 'IN_DOUBT', 'NEEDS_REVIEW', 'SUCCEEDED');

-- One open redemption for each account, and what the reconciler walks.
CREATE UNIQUE INDEX redemptions_open ON redemptions (pool_id, account_id)
    WHERE state IN ('SUBMITTED', 'IN_DOUBT', 'NEEDS_REVIEW');

-- An account's redemptions, for people.
CREATE INDEX redemptions_by_account ON redemptions (pool_id, account_id, redemption_id);

-- An open redemption is marked on its account, where every later guard sees it after waiting for
-- that row's lock; a NOT EXISTS over an old snapshot would not.
CREATE FUNCTION redemption_mark_open() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE accounts
    SET open_redemption_id = NEW.redemption_id,
        change_actor = NEW.holder,
        change_reason = 'redeem_begun'
    WHERE pool_id = NEW.pool_id
      AND account_id = NEW.account_id
      AND fencing_token = NEW.fencing_token
      AND status = 'LOCKING'
      AND open_redemption_id IS NULL;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'redemption % does not fit the lease on account % of pool %',
            NEW.redemption_id, NEW.account_id, NEW.pool_id;
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER redemption_mark_open AFTER INSERT ON redemptions
    FOR EACH ROW WHEN (NEW.state IN ('SUBMITTED', 'IN_DOUBT', 'NEEDS_REVIEW'))
    EXECUTE FUNCTION redemption_mark_open();
