-- What the program's compare-and-swap needs: docs/adr/0040-the-program-decides-the-database-guards.md.
-- A transition is decided by domain/account.rs from a row whose version is known, and written by store/sql/apply.sql
-- or begin.sql where that version is still the account's.

-- Raised by every change of the pool or of one of its plans. A change of an account that was decided from other
-- terms than the present ones is refused, and decided again.
ALTER TABLE pools ADD COLUMN revision bigint NOT NULL DEFAULT 1;

-- Which change made the version. Versions may repeat, after a restore or a failover that lost commits; ids do not.
ALTER TABLE accounts ADD COLUMN change_id uuid NOT NULL DEFAULT gen_random_uuid();
ALTER TABLE account_events ADD COLUMN change_id uuid;

-- Servers write the events of their changes themselves.
DROP TRIGGER account_note_event ON accounts;
DROP TRIGGER account_note_first_event ON accounts;
DROP FUNCTION account_note_event();
DROP FUNCTION account_note_first_event();
ALTER TABLE accounts DROP COLUMN change_actor, DROP COLUMN change_reason;
-- A server gives each new account its first version. Whoever else creates one leaves this to the trigger.
ALTER TABLE accounts ALTER COLUMN version SET DEFAULT 0;

-- The open redemption is marked by the statement that records it.
DROP TRIGGER IF EXISTS redemption_mark_open ON redemptions;
DROP TRIGGER IF EXISTS redemptions_mark_open ON redemptions;
DROP FUNCTION redemption_mark_open();
DROP FUNCTION redemptions_mark_open();

-- Candidates are assigned to requests by the program.
DROP FUNCTION first_come(int[], int[], int[]);

CREATE TYPE account_change AS (
    -- The account, and the version and change from which the next row was decided.
    account_id text,
    version bigint,
    seen uuid,
    -- The token of that version, which is part of the account's key.
    seen_token bigint,
    -- The id of this change.
    change_id uuid,
    -- What must be so by the database's clock: 'alive' or 'ended' (the lease), 'free' (usable now), 'due' (its day),
    -- or 'none'.
    guard text,
    actor text,
    reason text,
    -- The next row. A null lease keeps the one that is there.
    status text,
    resume_status text,
    fencing_token bigint,
    holder text,
    lease_request_id text,
    lease_for interval,
    bound_by_lease bool,
    release_requested bool,
    lease_end text,
    login_status text,
    plan_id text,
    country_code text,
    -- Null: as they are.
    labels jsonb,
    paused bool,
    draining bool,
    -- Money is written as a difference.
    credit_minor bigint,
    plan_day int,
    day_credited_minor bigint,
    reserved_minor bigint,
    -- Times: so long from now where a duration is given, otherwise the time that is given, or none.
    day_due_at timestamptz,
    day_due_in interval,
    cooldown_until timestamptz,
    cooldown_for interval,
    hold_until timestamptz,
    hold_for interval,
    hold_cause text,
    hold_count int,
    goes_idle bool,
    -- The open redemption of the next row.
    open_redemption_id uuid,
    -- The redemption whose outcome is recorded with it, if any; the state that it must be in (null: any that is
    -- open); and the outcome.
    redemption_id uuid,
    known_state text,
    state text,
    amount_minor bigint,
    amount_currency text,
    provider_ref text,
    failure_reason text,
    failure_message text,
    code_spent bool,
    attempts int,
    last_answer text,
    resolved_by text,
    resolution_reason text,
    resolution_evidence text
);

DO $migration$
DECLARE
    -- Where this installation's tables are, and with them its functions.
    home CONSTANT text := (
        SELECT quote_ident(n.nspname)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid = 'accounts'::regclass
    );
BEGIN
    EXECUTE replace($function$
        CREATE FUNCTION HOME.pool_raise_revision() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            -- Never one that was told before, also where a failover lost the commits that told it.
            NEW.revision := GREATEST(
                OLD.revision + 1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
            );
            RETURN NEW;
        END
        $$
    $function$, 'HOME', home);

    EXECUTE replace($function$
        CREATE FUNCTION HOME.plan_raise_revision() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE
            of_pool CONSTANT text := CASE WHEN TG_OP = 'DELETE' THEN OLD.pool_id ELSE NEW.pool_id END;
        BEGIN
            -- The trigger of the pool counts.
            UPDATE HOME.pools SET revision = revision WHERE pool_id = of_pool;
            RETURN NULL;
        END
        $$
    $function$, 'HOME', home);

    -- A person's change: it gets the next version, an id, and its event. What follows from the change is kept right.
    EXECUTE replace($function$
        CREATE FUNCTION HOME.account_changed_by_hand() RETURNS trigger LANGUAGE plpgsql AS $$
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
            NEW.parked := NEW.status IN ('WAITING', 'PROCESSING')
                AND COALESCE(GREATEST(NEW.day_due_at, NEW.cooldown_until, NEW.hold_until) > now(), false);
            NEW.version := CASE WHEN TG_OP = 'UPDATE' THEN OLD.version ELSE 0 END + 1;
            NEW.change_id := gen_random_uuid();
            NEW.updated_at := now();
            INSERT INTO HOME.account_events (
                pool_id, account_id, version, change_id, happened_at, actor, reason, from_status, to_status,
                fencing_token, redemption_id, balance_minor, lease_expires_at
            ) VALUES (
                NEW.pool_id, NEW.account_id, NEW.version, NEW.change_id, now(),
                'database user ' || session_user,
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

    EXECUTE replace($function$
        CREATE FUNCTION HOME.account_refuse_version() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'account % of pool % has version %, and version % does not follow it',
                OLD.account_id, OLD.pool_id, OLD.version, NEW.version;
        END
        $$
    $function$, 'HOME', home);
END
$migration$;

CREATE TRIGGER pool_raise_revision BEFORE UPDATE ON pools
    FOR EACH ROW EXECUTE FUNCTION pool_raise_revision();
CREATE TRIGGER plan_raise_revision AFTER INSERT OR UPDATE OR DELETE ON plans
    FOR EACH ROW EXECUTE FUNCTION plan_raise_revision();

-- Not where the deferral alone is ended (parked), which changes nothing that anybody could see.
CREATE TRIGGER account_changed_by_hand
    BEFORE UPDATE OF
        pool_id, account_id, status, login_status, plan_id, country_code, balance_minor, labels, fencing_token,
        resume_status, holder, lease_request_id, lease_acquired_at, lease_expires_at, bound_by_lease,
        release_requested, lease_end, open_redemption_id, idle_since, created_at, updated_at, plan_day,
        day_credited_minor, reserved_minor, day_due_at, cooldown_until, hold_until, hold_cause, hold_count, paused,
        draining, change_id
    ON accounts
    FOR EACH ROW WHEN (NEW.version = OLD.version) EXECUTE FUNCTION account_changed_by_hand();
CREATE TRIGGER account_created_by_hand BEFORE INSERT ON accounts
    FOR EACH ROW WHEN (NEW.version = 0) EXECUTE FUNCTION account_changed_by_hand();
CREATE TRIGGER account_refuse_version BEFORE UPDATE ON accounts
    FOR EACH ROW WHEN (NEW.version <> OLD.version AND NEW.version <> OLD.version + 1)
    EXECUTE FUNCTION account_refuse_version();
