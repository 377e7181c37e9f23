-- Subscriptions: outcomes of a pool, sent to a URL as they are recorded. docs/adr/0071-outcomes-are-sent-from-a-cursor.md.

CREATE TABLE subscriptions (
    pool_id text COLLATE "C" NOT NULL REFERENCES pools ON DELETE CASCADE,
    subscription_id text COLLATE "C" NOT NULL,
    url text NOT NULL,
    -- The URL may be http to another machine.
    allow_plain boolean NOT NULL,
    -- Only outcomes of these states; all when empty.
    states text[] NOT NULL,
    paused boolean NOT NULL,
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    -- What deliveries are signed with, encrypted under pool and subscription.
    secret bytea NOT NULL,
    -- The one before, while it signs too.
    secret_before bytea,
    secret_before_end timestamptz,
    -- What is up to here was delivered, or has a row in deliveries.
    cursor text NOT NULL,
    -- Rises when a server begins to deliver, and when the subscription is changed. What a server writes repeats it.
    claim bigint NOT NULL DEFAULT 0,
    -- The server that delivers, for as long as it beats.
    claimed_by uuid,
    -- The receiver takes nothing at all: how many tries in a row have failed, since when, and when the next one is.
    failures integer NOT NULL DEFAULT 0,
    failing_since timestamptz,
    next_try_at timestamptz,
    -- In plain words. Nothing that a receiver has answered is in it.
    last_error text NOT NULL DEFAULT '',
    PRIMARY KEY (pool_id, subscription_id),
    CHECK ((secret_before IS NULL) = (secret_before_end IS NULL))
);

-- What each server delivers.
CREATE INDEX subscriptions_claimed_by ON subscriptions (claimed_by) WHERE claimed_by IS NOT NULL;

-- Deliveries that were not taken, while the receiver took others: each is tried again by itself, and given up in the end. An
-- outcome of an account that has one here waits in a row of its own, so that the account's order is kept.
CREATE TABLE deliveries (
    pool_id text COLLATE "C" NOT NULL,
    subscription_id text COLLATE "C" NOT NULL,
    -- Made from where the outcome stands, so that its order as text is that of the outcomes.
    delivery_id text COLLATE "C" NOT NULL,
    redemption_id uuid NOT NULL,
    account_id text COLLATE "C" NOT NULL,
    attempts integer NOT NULL,
    last_error text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    -- Since when it is tried: since it was kept, or retried by a person. Null while it only waits behind another.
    tried_since timestamptz,
    last_try_at timestamptz,
    next_try_at timestamptz,
    -- When it was given up: a dead letter.
    dead_at timestamptz,
    CHECK ((next_try_at IS NULL) = (dead_at IS NOT NULL)),
    PRIMARY KEY (pool_id, subscription_id, delivery_id),
    FOREIGN KEY (pool_id, subscription_id) REFERENCES subscriptions ON DELETE CASCADE
);

-- Those that are tried, by their accounts.
CREATE INDEX deliveries_living ON deliveries (pool_id, subscription_id, account_id, delivery_id) WHERE dead_at IS NULL;

-- Secrets are written with the current key alone, as credentials are.
CREATE FUNCTION subscription_check_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF key_of(NEW.secret) <> (SELECT i.current_key FROM installation i) THEN
        RAISE EXCEPTION 'the secret key % is not current any more', key_of(NEW.secret) USING ERRCODE = 'HF001';
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
        WHERE c.oid = 'subscriptions'::regclass
    );
BEGIN
    EXECUTE format('ALTER FUNCTION %s.subscription_check_key() SET search_path = pg_catalog, %s, pg_temp', home, home);
END
$migration$;

CREATE TRIGGER subscription_check_key BEFORE INSERT OR UPDATE OF secret ON subscriptions
    FOR EACH ROW EXECUTE FUNCTION subscription_check_key();
