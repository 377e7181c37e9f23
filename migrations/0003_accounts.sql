-- Accounts, the leases on them, and what happened to each.

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
    lease_request_id text COLLATE "C",
    lease_acquired_at timestamptz,
    lease_expires_at timestamptz,
    -- The lease bound the account to its plan; undone when it ends without a success.
    bound_by_lease bool NOT NULL DEFAULT false,
    -- The holder asked for the release while a redemption was open.
    release_requested bool NOT NULL DEFAULT false,
    -- How the last lease ended: 'released' or 'expired'.
    lease_end text COLLATE "C" CHECK (lease_end IN ('released', 'expired')),
    -- Set by a trigger when a redemption is inserted, cleared by the statement that settles it.
    open_redemption_id uuid,
    -- When the last lease ended (while one is out: its last release request or settlement). Orders the
    -- choice, and no lease may begin before it: a statement
    -- that began before the last lease ended, by now(), passes the account by.
    idle_since timestamptz NOT NULL DEFAULT now(),

    -- Counts changes; set by the trigger below, which keys the account's events by it.
    version bigint NOT NULL DEFAULT 1,
    -- Who makes a change and why. Read and cleared by the trigger; never stored.
    change_actor text,
    change_reason text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),

    PRIMARY KEY (pool_id, account_id),
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
    )
) WITH (
    -- An acquisition and a release each leave a dead row: keep room on the page for them, and clean
    -- up by count, not by a share of a table that is mostly idle.
    fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_analyze_scale_factor = 0.05,
    autovacuum_vacuum_cost_delay = 0
);

-- What acquire walks, in its order: 'PROCESSING' sorts before 'WAITING'.
CREATE INDEX accounts_free ON accounts (pool_id, status, idle_since, account_id)
    WHERE status IN ('PROCESSING', 'WAITING') AND login_status = 'ACTIVE';

-- The same for one plan, and (plan_id null) for accounts that have none.
CREATE INDEX accounts_free_by_plan ON accounts (pool_id, plan_id, status, idle_since, account_id)
    WHERE status IN ('PROCESSING', 'WAITING') AND login_status = 'ACTIVE';

-- One lease for each request, and what the sweeper walks. lease_expires_at is not in it, so that a
-- renewal is a HOT update.
CREATE UNIQUE INDEX accounts_lease_request ON accounts (pool_id, lease_request_id)
    WHERE status = 'LOCKING';

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
    PRIMARY KEY (pool_id, account_id, version)
) WITH (autovacuum_vacuum_insert_scale_factor = 0.05);

-- Every change of an account leaves its event, whoever makes it: also a person with psql, who is
-- named by the database user.
CREATE FUNCTION account_note_event() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    was accounts%ROWTYPE;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        was := OLD;
        NEW.version := OLD.version + 1;
        NEW.updated_at := now();
    END IF;
    INSERT INTO account_events (
        pool_id, account_id, version, happened_at, actor, reason, from_status, to_status,
        fencing_token, redemption_id, balance_minor, lease_expires_at
    ) VALUES (
        NEW.pool_id, NEW.account_id, NEW.version, now(),
        COALESCE(NEW.change_actor, 'database user ' || session_user),
        COALESCE(NEW.change_reason, CASE TG_OP WHEN 'INSERT' THEN 'created' ELSE 'changed' END),
        was.status, NEW.status, NEW.fencing_token,
        COALESCE(NEW.open_redemption_id, was.open_redemption_id),
        NEW.balance_minor,
        CASE WHEN NEW.status = 'LOCKING' THEN NEW.lease_expires_at END
    ) ON CONFLICT DO NOTHING;
    -- An INSERT … ON CONFLICT of an account that is there comes by here too, and adds nothing.
    IF NOT FOUND AND TG_OP = 'UPDATE' THEN
        RAISE EXCEPTION 'account % of pool % has event % already',
            NEW.account_id, NEW.pool_id, NEW.version;
    END IF;
    NEW.change_actor := NULL;
    NEW.change_reason := NULL;
    RETURN NEW;
END
$$;

-- BEFORE, so that the row can be given its version; nothing can refuse the row after it but an
-- error, which takes the event back too.
CREATE TRIGGER account_note_event BEFORE INSERT OR UPDATE ON accounts
    FOR EACH ROW EXECUTE FUNCTION account_note_event();

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME;
END
$$;

CREATE TRIGGER account_events_append_only BEFORE UPDATE OR DELETE ON account_events
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
