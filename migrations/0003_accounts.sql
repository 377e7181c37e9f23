-- Accounts, the leases on them, and the history of each.
--
-- domain/account.rs decides every change of an account, from a row and its version. store/sql/apply.sql or begin.sql
-- writes it where that is still the account's version, with its event:
-- docs/adr/0040-the-program-decides-the-database-guards.md.

CREATE TABLE accounts (
    pool_id text COLLATE "C" NOT NULL REFERENCES pools (pool_id),
    account_id text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL DEFAULT 'WAITING'
        CHECK (status IN ('WAITING', 'PROCESSING', 'LOCKING', 'COMPLETED')),
    login_status text COLLATE "C" NOT NULL DEFAULT 'ACTIVE'
        CHECK (login_status IN ('ACTIVE', 'INACTIVE', 'INVALID')),
    plan_id text COLLATE "C",
    country_code text COLLATE "C" CHECK (country_code ~ '^[A-Z]{2}$'),
    balance_minor bigint NOT NULL DEFAULT 0 CHECK (balance_minor >= 0),
    labels jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(labels) = 'object'),

    -- Rises by one at every acquisition; every write under a lease repeats it.
    fencing_token bigint NOT NULL DEFAULT 0,
    -- The lease while the status is LOCKING; afterwards the last one, for explanations.
    resume_status text COLLATE "C" CHECK (resume_status IN ('WAITING', 'PROCESSING', 'COMPLETED')),
    holder text COLLATE "C",
    -- Null when the lease has ended.
    lease_request_id text COLLATE "C",
    lease_acquired_at timestamptz,
    lease_expires_at timestamptz,
    -- The lease bound the account to its plan; undone when it ends without a success.
    bound_by_lease bool NOT NULL DEFAULT false,
    -- The holder asked for the release while a redemption was open.
    release_requested bool NOT NULL DEFAULT false,
    -- How the last lease ended.
    lease_end text COLLATE "C" CHECK (lease_end IN ('released', 'expired')),
    -- Set by the statement that begins a redemption, cleared by the one that settles it. It marks the account, so that
    -- every later guard sees it after waiting for the row's lock; a NOT EXISTS over an old snapshot would not.
    open_redemption_id uuid,
    -- When the last lease ended (while one is out: its last release request or settlement). It orders the choice. No
    -- lease may begin before it: a statement that began earlier, by now(), does not take the account.
    idle_since timestamptz NOT NULL DEFAULT now(),

    -- Counts changes, and is the key of the account's events. A server gives each new account its first version;
    -- anybody else leaves this to the trigger below.
    version bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),

    -- How far the account is in its plan: the day, counted from 1, and what was credited on it.
    plan_day int NOT NULL DEFAULT 1 CHECK (plan_day >= 1),
    day_credited_minor bigint NOT NULL DEFAULT 0 CHECK (day_credited_minor >= 0),
    -- What the lease, or the redemption under it, is expected to bring: reserved from acquisition to settlement. Null
    -- when nobody told.
    reserved_minor bigint CHECK (reserved_minor > 0),
    -- Not to be used before: the plan's next day, the pause between redemptions, a hold.
    day_due_at timestamptz,
    cooldown_until timestamptz,
    hold_until timestamptz,
    hold_cause text COLLATE "C" CHECK (hold_cause IN ('LOGIN_INVALID', 'LIMIT_REACHED', 'THROTTLED')),
    -- Failures in a row that were the account's own.
    hold_count int NOT NULL DEFAULT 0 CHECK (hold_count >= 0),
    -- Set by a person: nothing new is begun on it (paused), or only nothing new is leased (draining).
    paused bool NOT NULL DEFAULT false,
    draining bool NOT NULL DEFAULT false,
    usable_at timestamptz
        GENERATED ALWAYS AS (GREATEST(day_due_at, cooldown_until, hold_until)) STORED,
    -- Which change made the version. Versions may repeat, after a restore or a failover that lost commits; ids do not.
    change_id uuid NOT NULL DEFAULT gen_random_uuid(),

    -- With a part of the token, since every lease leaves two dead versions of its account. During a long-running
    -- transaction vacuum cannot remove them, and a search by key reads all versions of the same key: these are at most
    -- those of sixteen leases. Within these no index changes, so versions stay on the row's page as long as it has
    -- room (HOT). An id is unique by the account's first event.
    token_group bigint GENERATED ALWAYS AS (fencing_token / 16) STORED,
    PRIMARY KEY (pool_id, account_id, token_group),
    FOREIGN KEY (pool_id, plan_id) REFERENCES plans (pool_id, plan_id),
    CONSTRAINT accounts_lock_is_whole CHECK (
        status <> 'LOCKING'
        OR (resume_status IS NOT NULL AND holder IS NOT NULL AND lease_request_id IS NOT NULL
            AND lease_acquired_at IS NOT NULL AND lease_expires_at IS NOT NULL)
    ),
    CONSTRAINT accounts_open_redemption_stays_locked CHECK (
        open_redemption_id IS NULL OR status = 'LOCKING'
    ),
    CONSTRAINT accounts_release_waits_for_a_redemption CHECK (
        NOT release_requested OR open_redemption_id IS NOT NULL
    ),
    CONSTRAINT accounts_reserve_under_a_lease CHECK (
        reserved_minor IS NULL OR status = 'LOCKING'
    ),
    CONSTRAINT accounts_days_belong_to_a_plan CHECK (
        plan_id IS NOT NULL OR (plan_day = 1 AND day_credited_minor = 0 AND day_due_at IS NULL)
    ),
    CONSTRAINT accounts_hold_has_a_cause CHECK ((hold_until IS NULL) = (hold_cause IS NULL))
) WITH (
    -- An acquisition and a release each leave a dead row. The fill factor keeps room on the page for them, and vacuum
    -- runs by their number, not by a share of a table that is mostly idle.
    fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_analyze_scale_factor = 0.05,
    autovacuum_vacuum_cost_delay = 0
);

-- Accounts of a plan, for a plan that is to be deleted.
CREATE INDEX accounts_by_plan ON accounts (pool_id, plan_id) WHERE plan_id IS NOT NULL;

-- Living leases: one a request, and their ends, to find those whose time has passed. Written with the accounts, by the
-- same statements. Not columns of accounts, because an index on what changes with every lease makes each change of an
-- account cost an entry in every index.
CREATE TABLE leases (
    pool_id text COLLATE "C" NOT NULL,
    request_id text COLLATE "C" NOT NULL,
    account_id text COLLATE "C" NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (pool_id, request_id)
) WITH (
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0
);

-- By their ends, of all pools: a scan for expired ones reads what ended since the scan before, and not all that was
-- leased and released since the last vacuum.
CREATE INDEX leases_end ON leases (expires_at, pool_id);

-- What happened to each account: one event for each change, by the statement that makes the change.
CREATE TABLE account_events (
    pool_id text COLLATE "C" NOT NULL,
    account_id text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    happened_at timestamptz NOT NULL,
    actor text NOT NULL,
    reason text NOT NULL,
    -- Null for the account's first event.
    from_status text COLLATE "C",
    to_status text COLLATE "C" NOT NULL,
    fencing_token bigint NOT NULL,
    redemption_id uuid,
    balance_minor bigint NOT NULL,
    -- Set while the account is LOCKING.
    lease_expires_at timestamptz,
    -- The change that it tells of.
    change_id uuid,
    PRIMARY KEY (pool_id, account_id, version)
) WITH (autovacuum_vacuum_insert_scale_factor = 0.05);

-- Which accounts were changed, for the servers that keep the pool's accounts in memory: one row for each statement
-- that changed any. A server reads the rows whose transaction its last snapshot did not see, so it misses none, in
-- whatever order they were committed. Old rows are removed.
CREATE TABLE account_changes (
    pool_id text COLLATE "C" NOT NULL,
    -- The transaction that wrote it.
    xid bigint NOT NULL DEFAULT (pg_current_xact_id()::text::bigint),
    -- A person's changes: one row for each transaction. Otherwise a server's.
    by_hand bool NOT NULL DEFAULT false,
    server_id uuid,
    -- The accounts that were changed. Null: a person changed many.
    account_ids text[] COLLATE "C",
    PRIMARY KEY (pool_id, xid, by_hand),
    CONSTRAINT account_changes_are_whole CHECK (
        by_hand = (server_id IS NULL) AND (by_hand OR account_ids IS NOT NULL)
    )
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

-- A change as the program has decided it. The statements take arrays of these.
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
    -- Times: now and a duration where one is given, otherwise the time that is given, or none.
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

-- An account keeps its id: its events, and the uniqueness of the id, are by it.
CREATE FUNCTION account_keep_id() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'account % of pool % keeps its id', OLD.account_id, OLD.pool_id;
END
$$;

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME;
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
    seldom text;
BEGIN
    FOREACH seldom IN ARRAY ARRAY['account_keep_id', 'refuse_change'] LOOP
        -- Temporary tables are last: otherwise they are first, whatever they are called.
        EXECUTE format('ALTER FUNCTION %s.%I() SET search_path = pg_catalog, %s, pg_temp', home, seldom, home);
    END LOOP;

    -- Notes which account a person changed, for the servers that keep it in memory. Of one transaction up to a
    -- hundred are named; after more of them servers read the whole pool.
    EXECUTE replace($function$
        CREATE FUNCTION HOME.note_change_by_hand(pool text, account text) RETURNS void LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO HOME.account_changes AS c (pool_id, by_hand, account_ids)
            VALUES (pool, true, ARRAY[account])
            ON CONFLICT (pool_id, xid, by_hand) DO UPDATE
            SET account_ids = CASE WHEN cardinality(c.account_ids) < 100 THEN c.account_ids || account END
            WHERE c.account_ids IS NOT NULL;
        END
        $$
    $function$, 'HOME', home);

    -- A person's change: it gets the next version, an id, and its event. What follows from the change is kept right.
    -- An account's first event makes its id unique: events are keyed by account and version, they are never deleted,
    -- and the first one has version 1.
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
            PERFORM HOME.note_change_by_hand(NEW.pool_id, NEW.account_id);
            IF TG_OP = 'UPDATE' AND OLD.lease_request_id IS NOT NULL THEN
                DELETE FROM HOME.leases WHERE pool_id = OLD.pool_id AND request_id = OLD.lease_request_id;
            END IF;
            IF NEW.lease_request_id IS NOT NULL THEN
                INSERT INTO HOME.leases (pool_id, request_id, account_id, expires_at)
                VALUES (NEW.pool_id, NEW.lease_request_id, NEW.account_id, NEW.lease_expires_at);
            END IF;
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

-- Changes by hand are those that do not raise the version.
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
CREATE TRIGGER account_keep_id BEFORE UPDATE OF pool_id, account_id ON accounts
    FOR EACH ROW WHEN (NEW.pool_id <> OLD.pool_id OR NEW.account_id <> OLD.account_id)
    EXECUTE FUNCTION account_keep_id();
CREATE TRIGGER account_events_append_only BEFORE UPDATE OR DELETE ON account_events
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
