-- The principal: who called, as authentication found it, and not as the caller says ("holder", "resolved_by").
--
-- Empty where nobody was asked who they are; 'server' where a server did it by itself; 'database:USER' for a change by
-- hand: docs/adr/0052-the-caller-is-part-of-the-lease.md.

-- Whose lease it is, beside the holder; afterwards the last one.
ALTER TABLE accounts ADD COLUMN lease_principal text COLLATE "C" NOT NULL DEFAULT '';

-- A request is its principal's: the same name of another is another request. The name comes first, so that a batch, whose
-- items are a range of names, still is a range of the index.
ALTER TABLE leases ADD COLUMN principal text COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE leases DROP CONSTRAINT leases_pkey;
ALTER TABLE leases ADD CONSTRAINT leases_pkey PRIMARY KEY (pool_id, request_id, principal);

-- Who began it, and who closed it by its word.
ALTER TABLE redemptions ADD COLUMN principal text COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE redemptions ADD COLUMN resolved_principal text COLLATE "C";
CREATE UNIQUE INDEX redemptions_request_of_principal ON redemptions (pool_id, request_id, principal);
DROP INDEX redemptions_request;
ALTER INDEX redemptions_request_of_principal RENAME TO redemptions_request;

ALTER TABLE reversals ADD COLUMN principal text COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE reversals ADD COLUMN resolved_principal text COLLATE "C";

ALTER TABLE account_events ADD COLUMN principal text COLLATE "C" NOT NULL DEFAULT '';

-- Of a change: who makes it, whose lease begins (null: none does), and who closes the redemption by its word.
ALTER TYPE account_change ADD ATTRIBUTE principal text;
ALTER TYPE account_change ADD ATTRIBUTE lease_principal text;
ALTER TYPE account_change ADD ATTRIBUTE resolved_principal text;

-- As before, and a lease goes by its principal, too.
CREATE OR REPLACE FUNCTION account_keep_redemptions() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM redemptions r WHERE r.pool_id = OLD.pool_id AND r.account_id = OLD.account_id
    ) THEN
        RAISE foreign_key_violation USING
            MESSAGE = format('account %s of pool %s has redemptions', OLD.account_id, OLD.pool_id);
    END IF;
    DELETE FROM leases
    WHERE pool_id = OLD.pool_id AND request_id = OLD.lease_request_id AND principal = OLD.lease_principal;
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
        WHERE c.oid = 'accounts'::regclass
    );
BEGIN
    -- A function that is replaced loses its settings.
    EXECUTE format(
        'ALTER FUNCTION %s.account_keep_redemptions() SET search_path = pg_catalog, %s, pg_temp', home, home
    );

    -- As before, and its event says which user of the database changed it.
    EXECUTE replace($function$
        CREATE OR REPLACE FUNCTION HOME.account_changed_by_hand() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            -- A plan begins on its first day.
            IF NEW.plan_id IS NULL OR TG_OP = 'UPDATE' AND NEW.plan_id IS DISTINCT FROM OLD.plan_id THEN
                NEW.plan_day := 1;
                NEW.day_credited_minor := 0;
                NEW.day_due_at := NULL;
            END IF;
            -- What belongs to a lease ends with it.
            IF NEW.status <> 'LOCKING' THEN
                NEW.lease_request_id := NULL;
                NEW.reserved_minor := NULL;
            END IF;
            PERFORM HOME.note_change_by_hand(NEW.pool_id, NEW.account_id);
            IF TG_OP = 'UPDATE' AND OLD.lease_request_id IS NOT NULL THEN
                DELETE FROM HOME.leases
                WHERE pool_id = OLD.pool_id AND request_id = OLD.lease_request_id AND principal = OLD.lease_principal;
            END IF;
            IF NEW.lease_request_id IS NOT NULL THEN
                INSERT INTO HOME.leases (pool_id, request_id, principal, account_id, expires_at)
                VALUES (
                    NEW.pool_id, NEW.lease_request_id, NEW.lease_principal, NEW.account_id, NEW.lease_expires_at
                );
            END IF;
            NEW.version := CASE WHEN TG_OP = 'UPDATE' THEN OLD.version ELSE 0 END + 1;
            NEW.change_id := gen_random_uuid();
            NEW.updated_at := now();
            INSERT INTO HOME.account_events (
                pool_id, account_id, version, change_id, happened_at, actor, principal, reason, from_status, to_status,
                fencing_token, redemption_id, balance_minor, lease_expires_at
            ) VALUES (
                NEW.pool_id, NEW.account_id, NEW.version, NEW.change_id, now(),
                'database user ' || session_user,
                'database:' || session_user,
                CASE TG_OP WHEN 'INSERT' THEN 'created' ELSE 'changed' END,
                CASE WHEN TG_OP = 'UPDATE' THEN OLD.status END, NEW.status, NEW.fencing_token,
                COALESCE(NEW.open_redemption_id, CASE WHEN TG_OP = 'UPDATE' THEN OLD.open_redemption_id END),
                NEW.balance_minor,
                CASE WHEN NEW.status = 'LOCKING' THEN NEW.lease_expires_at END
            ) ON CONFLICT DO NOTHING;
            IF NOT FOUND THEN
                RAISE unique_violation USING
                    CONSTRAINT = 'account_events_pkey',
                    MESSAGE = format(CASE TG_OP
                        WHEN 'INSERT' THEN 'account %s of pool %s is or was there already'
                        ELSE 'account %s of pool %s has event %s already'
                    END, NEW.account_id, NEW.pool_id, NEW.version);
            END IF;
            RETURN NEW;
        END
        $$
    $function$, 'HOME', home);
END
$migration$;

-- As before, and a change of whose lease it is by hand, too.
DROP TRIGGER account_changed_by_hand ON accounts;
CREATE TRIGGER account_changed_by_hand
    BEFORE UPDATE OF
        pool_id, account_id, status, login_status, plan_id, country_code, balance_minor, labels, fencing_token,
        resume_status, holder, lease_principal, lease_request_id, lease_acquired_at, lease_expires_at, bound_by_lease,
        release_requested, lease_end, open_redemption_id, idle_since, created_at, updated_at, plan_day,
        day_credited_minor, reserved_minor, day_due_at, cooldown_until, hold_until, hold_cause, hold_count, paused,
        draining, change_id
    ON accounts
    FOR EACH ROW WHEN (NEW.version = OLD.version) EXECUTE FUNCTION account_changed_by_hand();
