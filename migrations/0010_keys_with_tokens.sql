-- The key of an account has its fencing token in it: docs/adr/2026-11-28-an-accounts-key-has-its-token.md.
-- Every lease leaves two dead versions of its account, and while anybody's old transaction is open none can
-- be cleared away. Whoever adds an entry to a unique index reads all versions that have the same key, and
-- whoever looks one up does. With the token there are as many as one lease leaves, however old that
-- transaction is.
ALTER TABLE accounts DROP CONSTRAINT accounts_pkey;
ALTER TABLE accounts ADD CONSTRAINT accounts_pkey PRIMARY KEY (pool_id, account_id, fencing_token);

-- An account's first event, which makes its id its own: events are keyed by account and version, are never
-- taken away, and the first has version 1.
CREATE OR REPLACE FUNCTION account_note_first_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.version := 1;
    NEW.parked := NEW.status IN ('WAITING', 'PROCESSING')
        AND COALESCE(GREATEST(NEW.day_due_at, NEW.cooldown_until, NEW.hold_until) > now(), false);
    IF NEW.status <> 'LOCKING' THEN
        NEW.lease_request_id := NULL;
        NEW.reserved_minor := NULL;
    END IF;
    IF NEW.plan_id IS NULL THEN
        NEW.plan_day := 1;
        NEW.day_credited_minor := 0;
        NEW.day_due_at := NULL;
    END IF;
    INSERT INTO account_events (
        pool_id, account_id, version, happened_at, actor, reason, from_status, to_status,
        fencing_token, redemption_id, balance_minor, lease_expires_at
    ) VALUES (
        NEW.pool_id, NEW.account_id, NEW.version, now(),
        COALESCE(NEW.change_actor, 'database user ' || session_user),
        COALESCE(NEW.change_reason, 'created'),
        NULL, NEW.status, NEW.fencing_token, NEW.open_redemption_id, NEW.balance_minor,
        CASE WHEN NEW.status = 'LOCKING' THEN NEW.lease_expires_at END
    )
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        -- Servers say who they are, and see by what is returned which of many were there already. To
        -- anybody else it is the error that a unique index would give.
        IF NEW.change_actor IS NULL THEN
            RAISE unique_violation USING
                CONSTRAINT = 'account_events_pkey',
                MESSAGE = format('account %s of pool %s is or was there already', NEW.account_id, NEW.pool_id);
        END IF;
        RETURN NULL;
    END IF;
    NEW.change_actor := NULL;
    NEW.change_reason := NULL;
    RETURN NEW;
END
$$;

-- And keeps it.
CREATE FUNCTION account_keep_id() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'account % of pool % keeps its id', OLD.account_id, OLD.pool_id;
END
$$;

CREATE TRIGGER account_keep_id BEFORE UPDATE OF pool_id, account_id ON accounts
    FOR EACH ROW WHEN (NEW.pool_id <> OLD.pool_id OR NEW.account_id <> OLD.account_id)
    EXECUTE FUNCTION account_keep_id();
