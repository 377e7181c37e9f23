-- The schema as the migrations leave it, in the schema public. Written by: scripts/schema.sh prepare
-- migrations/ says why each thing is there. A test applies both, and compares.


-- Types

CREATE TYPE account_change AS (
    account_id text,
    version bigint,
    seen uuid,
    seen_token bigint,
    change_id uuid,
    guard text,
    actor text,
    reason text,
    status text,
    resume_status text,
    fencing_token bigint,
    holder text,
    lease_request_id text,
    lease_for interval,
    bound_by_lease boolean,
    release_requested boolean,
    lease_end text,
    login_status text,
    plan_id text,
    country_code text,
    labels jsonb,
    paused boolean,
    draining boolean,
    credit_minor bigint,
    plan_day integer,
    day_credited_minor bigint,
    reserved_minor bigint,
    day_due_at timestamptz,
    day_due_in interval,
    cooldown_until timestamptz,
    cooldown_for interval,
    hold_until timestamptz,
    hold_for interval,
    hold_cause text,
    hold_count integer,
    goes_idle boolean,
    open_redemption_id uuid,
    redemption_id uuid,
    known_state text,
    state text,
    amount_minor bigint,
    amount_currency text,
    provider_ref text,
    failure_reason text,
    failure_message text,
    code_spent boolean,
    attempts integer,
    last_answer text,
    resolved_by text,
    resolution_reason text,
    resolution_evidence text,
    principal text,
    lease_principal text,
    resolved_principal text
);

CREATE TYPE audit_note AS (
    change_id uuid,
    principal text,
    peer text,
    action text,
    subject text,
    before jsonb,
    after jsonb,
    reason text
);


-- Functions

CREATE FUNCTION account_changed_by_hand() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
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
            PERFORM public.note_change_by_hand(NEW.pool_id, NEW.account_id);
            IF TG_OP = 'UPDATE' AND OLD.lease_request_id IS NOT NULL THEN
                DELETE FROM public.leases
                WHERE pool_id = OLD.pool_id AND request_id = OLD.lease_request_id AND principal = OLD.lease_principal;
            END IF;
            IF NEW.lease_request_id IS NOT NULL THEN
                INSERT INTO public.leases (pool_id, request_id, principal, account_id, expires_at)
                VALUES (
                    NEW.pool_id, NEW.lease_request_id, NEW.lease_principal, NEW.account_id, NEW.lease_expires_at
                );
            END IF;
            NEW.version := CASE WHEN TG_OP = 'UPDATE' THEN OLD.version ELSE 0 END + 1;
            NEW.change_id := gen_random_uuid();
            NEW.updated_at := now();
            INSERT INTO public.account_events (
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
        $$;

CREATE FUNCTION account_keep_id() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'public', 'pg_temp'
    AS $$
BEGIN
    RAISE EXCEPTION 'account % of pool % keeps its id', OLD.account_id, OLD.pool_id;
END
$$;

CREATE FUNCTION account_keep_redemptions() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'public', 'pg_temp'
    AS $$
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

CREATE FUNCTION account_refuse_version() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
        BEGIN
            RAISE EXCEPTION 'account % of pool % has version %, and version % does not follow it',
                OLD.account_id, OLD.pool_id, OLD.version, NEW.version;
        END
        $$;

CREATE FUNCTION changed_values(row_values jsonb, other_values jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE
    AS $$
    SELECT jsonb_object_agg(o.key, o.value)
    FROM jsonb_each(row_values) o
    WHERE o.value <> COALESCE(other_values -> o.key, 'null')
      AND o.key <> ALL ('{pool_id,plan_id,revision,created_at,updated_at}'::text[])
$$;

CREATE FUNCTION code_is_free(pool text, key_id integer, key_ids integer[], fingerprints bytea[]) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'public', 'pg_temp'
    AS $$
DECLARE
    fingerprint bytea;
    current_fingerprint CONSTANT bytea := fingerprints[array_position(key_ids, code_is_free.key_id)];
BEGIN
    FOREACH fingerprint IN ARRAY fingerprints LOOP
        IF NOT pg_try_advisory_xact_lock(hashtextextended(pool || ' ' || encode(fingerprint, 'hex'), 0)) THEN
            RETURN false;
        END IF;
    END LOOP;
    IF code_is_free.key_id IS DISTINCT FROM (SELECT i.current_key FROM installation i)
        OR EXISTS (SELECT FROM secret_keys s WHERE s.key_id <> ALL (key_ids))
    THEN
        RETURN false;
    END IF;
    WITH held AS MATERIALIZED (
        SELECT r.redemption_id
        FROM redemptions r
        WHERE r.pool_id = pool
          AND r.code_fingerprint = ANY (fingerprints)
          AND r.code_fingerprint <> current_fingerprint
          AND r.state = 'FAILED'
        ORDER BY r.redemption_id
        FOR NO KEY UPDATE SKIP LOCKED
    )
    UPDATE redemptions r
    SET code_fingerprint = current_fingerprint,
        code_fingerprint_key = code_is_free.key_id
    FROM held h
    WHERE r.pool_id = pool AND r.redemption_id = h.redemption_id AND r.state = 'FAILED';
    RETURN NOT EXISTS (
        SELECT FROM redemptions r
        WHERE r.pool_id = pool
          AND r.code_fingerprint = ANY (fingerprints)
          AND r.state IN ('SUBMITTED', 'IN_DOUBT', 'NEEDS_REVIEW', 'SUCCEEDED')
          AND r.reversed_at IS NULL
    ) AND NOT EXISTS (
        SELECT FROM redemptions r
        WHERE r.pool_id = pool
          AND r.code_fingerprint = ANY (fingerprints)
          AND r.code_fingerprint <> current_fingerprint
          AND r.state = 'FAILED'
    );
END
$$;

CREATE FUNCTION count_token_change() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'public', 'pg_temp'
    AS $$
BEGIN
    UPDATE token_changes c SET changes = c.changes + 1 WHERE c.only_row;
    RETURN NULL;
END
$$;

CREATE FUNCTION credentials_check_key() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'public', 'pg_temp'
    AS $$
BEGIN
    IF key_of(NEW.credentials) <> (SELECT i.current_key FROM installation i) THEN
        RAISE EXCEPTION 'the secret key % is not current any more', key_of(NEW.credentials) USING ERRCODE = 'HF001';
    END IF;
    RETURN NEW;
END
$$;

CREATE FUNCTION key_of(sealed bytea) RETURNS integer
    LANGUAGE sql IMMUTABLE
    AS $$
    SELECT CASE
        WHEN length(sealed) > 0 AND get_byte(sealed, 0) = 1 THEN 1
        WHEN length(sealed) > 2 AND get_byte(sealed, 0) = 2 THEN get_byte(sealed, 1) * 256 + get_byte(sealed, 2)
    END
$$;

CREATE FUNCTION note_change_by_hand(pool text, account text) RETURNS void
    LANGUAGE plpgsql
    AS $$
        BEGIN
            INSERT INTO public.account_changes AS c (pool_id, by_hand, account_ids)
            VALUES (pool, true, ARRAY[account])
            ON CONFLICT (pool_id, xid, by_hand) DO UPDATE
            SET account_ids = CASE WHEN cardinality(c.account_ids) < 100 THEN c.account_ids || account END
            WHERE c.account_ids IS NOT NULL;
        END
        $$;

CREATE FUNCTION plan_raise_revision() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
        DECLARE
            of_pool CONSTANT text := CASE WHEN TG_OP = 'DELETE' THEN OLD.pool_id ELSE NEW.pool_id END;
        BEGIN
            -- The trigger of the pool counts.
            UPDATE public.pools SET revision = revision WHERE pool_id = of_pool;
            RETURN NULL;
        END
        $$;

CREATE FUNCTION pool_raise_revision() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
        BEGIN
            -- Never one that was told before, also where a failover lost the commits that told it.
            NEW.revision := GREATEST(
                OLD.revision + 1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
            );
            RETURN NEW;
        END
        $$;

CREATE FUNCTION refuse_change() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'public', 'pg_temp'
    AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME;
END
$$;

CREATE FUNCTION refuse_deletion() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'public', 'pg_temp'
    AS $$
BEGIN
    RAISE EXCEPTION '% are kept for good', TG_TABLE_NAME;
END
$$;

CREATE FUNCTION subscription_check_key() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'public', 'pg_temp'
    AS $$
BEGIN
    IF key_of(NEW.secret) <> (SELECT i.current_key FROM installation i) THEN
        RAISE EXCEPTION 'the secret key % is not current any more', key_of(NEW.secret) USING ERRCODE = 'HF001';
    END IF;
    RETURN NEW;
END
$$;


-- Table secret_keys

CREATE TABLE secret_keys (
    key_id integer NOT NULL,
    key_check bytea NOT NULL,
    retired_at timestamptz,
    kept_by integer,
    kept bytea,
    created_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT secret_keys_check CHECK (((kept_by IS NULL) = (kept IS NULL))),
    CONSTRAINT secret_keys_key_id_check CHECK (((key_id >= 1) AND (key_id <= 65535)))
);

ALTER TABLE secret_keys
    ADD CONSTRAINT secret_keys_pkey PRIMARY KEY (key_id);

ALTER TABLE secret_keys
    ADD CONSTRAINT secret_keys_kept_by_fkey FOREIGN KEY (kept_by) REFERENCES secret_keys(key_id);


-- Table installation

CREATE TABLE installation (
    singleton boolean DEFAULT true NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    current_key integer DEFAULT 1 NOT NULL,
    CONSTRAINT installation_singleton_check CHECK (singleton)
);

ALTER TABLE installation
    ADD CONSTRAINT installation_pkey PRIMARY KEY (singleton);

ALTER TABLE installation
    ADD CONSTRAINT installation_current_key_fkey FOREIGN KEY (current_key) REFERENCES secret_keys(key_id);


-- Table pools

CREATE TABLE pools (
    pool_id text NOT NULL COLLATE "C",
    currency_code text NOT NULL COLLATE "C",
    default_lease interval NOT NULL,
    min_lease interval NOT NULL,
    max_lease interval NOT NULL,
    paused boolean DEFAULT false NOT NULL,
    amount_mismatch text NOT NULL COLLATE "C",
    draining boolean DEFAULT false NOT NULL,
    holder_share_percent integer DEFAULT 50 NOT NULL,
    hold_login_invalid interval DEFAULT '01:00:00'::interval NOT NULL,
    hold_limit_reached interval DEFAULT '01:00:00'::interval NOT NULL,
    hold_throttled interval DEFAULT '00:01:00'::interval NOT NULL,
    hold_longest interval DEFAULT '24:00:00'::interval NOT NULL,
    revision bigint DEFAULT ((EXTRACT(epoch FROM clock_timestamp()) * (1000000)::numeric))::bigint NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    updated_at timestamptz DEFAULT now() NOT NULL,
    provider_id text DEFAULT 'holdfast'::text NOT NULL COLLATE "C",
    CONSTRAINT pools_amount_mismatch_check CHECK ((amount_mismatch = ANY (ARRAY['ACCEPT'::text, 'NEEDS_REVIEW'::text]))),
    CONSTRAINT pools_currency_code_check CHECK ((currency_code ~ '^[A-Z]{3}$'::text)),
    CONSTRAINT pools_holder_share_percent_check CHECK (((holder_share_percent >= 1) AND (holder_share_percent <= 100))),
    CONSTRAINT pools_lease_bounds CHECK ((('00:00:01'::interval <= min_lease) AND (min_lease <= default_lease) AND (default_lease <= max_lease) AND (max_lease <= '24:00:00'::interval)))
);

ALTER TABLE pools
    ADD CONSTRAINT pools_pkey PRIMARY KEY (pool_id);

CREATE TRIGGER pool_raise_revision BEFORE UPDATE ON pools FOR EACH ROW EXECUTE FUNCTION pool_raise_revision();


-- Table plans

CREATE TABLE plans (
    pool_id text NOT NULL COLLATE "C",
    plan_id text NOT NULL COLLATE "C",
    target_minor bigint NOT NULL,
    day_amounts_minor bigint[] DEFAULT '{}'::bigint[] NOT NULL,
    day_tolerance_minor bigint DEFAULT 0 NOT NULL,
    day_interval interval DEFAULT '24:00:00'::interval NOT NULL,
    redemption_interval interval DEFAULT '00:00:00'::interval NOT NULL,
    smallest_minor bigint DEFAULT 1 NOT NULL,
    largest_minor bigint,
    step_minor bigint,
    fixed_minor bigint[],
    created_at timestamptz DEFAULT now() NOT NULL,
    updated_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT plans_check CHECK ((largest_minor >= smallest_minor)),
    CONSTRAINT plans_day_tolerance_minor_check CHECK ((day_tolerance_minor >= 0)),
    CONSTRAINT plans_fixed_amounts_have_a_step CHECK (((fixed_minor IS NULL) OR (step_minor IS NOT NULL))),
    CONSTRAINT plans_fixed_minor_check CHECK ((cardinality(fixed_minor) > 0)),
    CONSTRAINT plans_smallest_minor_check CHECK ((smallest_minor > 0)),
    CONSTRAINT plans_step_minor_check CHECK ((step_minor > 0)),
    CONSTRAINT plans_target_minor_check CHECK ((target_minor > 0))
);

ALTER TABLE plans
    ADD CONSTRAINT plans_pkey PRIMARY KEY (pool_id, plan_id);

CREATE TRIGGER plan_raise_revision AFTER INSERT OR DELETE OR UPDATE ON plans FOR EACH ROW EXECUTE FUNCTION plan_raise_revision();

ALTER TABLE plans
    ADD CONSTRAINT plans_pool_id_fkey FOREIGN KEY (pool_id) REFERENCES pools(pool_id);


-- Table accounts

CREATE TABLE accounts (
    pool_id text NOT NULL COLLATE "C",
    account_id text NOT NULL COLLATE "C",
    status text DEFAULT 'WAITING'::text NOT NULL COLLATE "C",
    login_status text DEFAULT 'ACTIVE'::text NOT NULL COLLATE "C",
    plan_id text COLLATE "C",
    country_code text COLLATE "C",
    balance_minor bigint DEFAULT 0 NOT NULL,
    labels jsonb DEFAULT '{}'::jsonb NOT NULL,
    fencing_token bigint DEFAULT 0 NOT NULL,
    resume_status text COLLATE "C",
    holder text COLLATE "C",
    lease_request_id text COLLATE "C",
    lease_acquired_at timestamptz,
    lease_expires_at timestamptz,
    bound_by_lease boolean DEFAULT false NOT NULL,
    release_requested boolean DEFAULT false NOT NULL,
    lease_end text COLLATE "C",
    open_redemption_id uuid,
    idle_since timestamptz DEFAULT now() NOT NULL,
    version bigint DEFAULT 0 NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    updated_at timestamptz DEFAULT now() NOT NULL,
    plan_day integer DEFAULT 1 NOT NULL,
    day_credited_minor bigint DEFAULT 0 NOT NULL,
    reserved_minor bigint,
    day_due_at timestamptz,
    cooldown_until timestamptz,
    hold_until timestamptz,
    hold_cause text COLLATE "C",
    hold_count integer DEFAULT 0 NOT NULL,
    paused boolean DEFAULT false NOT NULL,
    draining boolean DEFAULT false NOT NULL,
    usable_at timestamptz GENERATED ALWAYS AS (GREATEST(day_due_at, cooldown_until, hold_until)) STORED,
    change_id uuid DEFAULT gen_random_uuid() NOT NULL,
    token_group bigint GENERATED ALWAYS AS ((fencing_token / 16)) STORED NOT NULL,
    lease_principal text DEFAULT ''::text NOT NULL COLLATE "C",
    CONSTRAINT accounts_balance_minor_check CHECK ((balance_minor >= 0)),
    CONSTRAINT accounts_country_code_check CHECK ((country_code ~ '^[A-Z]{2}$'::text)),
    CONSTRAINT accounts_day_credited_minor_check CHECK ((day_credited_minor >= 0)),
    CONSTRAINT accounts_days_belong_to_a_plan CHECK (((plan_id IS NOT NULL) OR ((plan_day = 1) AND (day_credited_minor = 0) AND (day_due_at IS NULL)))),
    CONSTRAINT accounts_hold_cause_check CHECK ((hold_cause = ANY (ARRAY['LOGIN_INVALID'::text, 'LIMIT_REACHED'::text, 'THROTTLED'::text]))),
    CONSTRAINT accounts_hold_count_check CHECK ((hold_count >= 0)),
    CONSTRAINT accounts_hold_has_a_cause CHECK (((hold_until IS NULL) = (hold_cause IS NULL))),
    CONSTRAINT accounts_labels_check CHECK ((jsonb_typeof(labels) = 'object'::text)),
    CONSTRAINT accounts_lease_end_check CHECK ((lease_end = ANY (ARRAY['released'::text, 'expired'::text]))),
    CONSTRAINT accounts_lock_is_whole CHECK (((status <> 'LOCKING'::text) OR ((resume_status IS NOT NULL) AND (holder IS NOT NULL) AND (lease_request_id IS NOT NULL) AND (lease_acquired_at IS NOT NULL) AND (lease_expires_at IS NOT NULL)))),
    CONSTRAINT accounts_login_status_check CHECK ((login_status = ANY (ARRAY['ACTIVE'::text, 'INACTIVE'::text, 'INVALID'::text]))),
    CONSTRAINT accounts_open_redemption_stays_locked CHECK (((open_redemption_id IS NULL) OR (status = 'LOCKING'::text))),
    CONSTRAINT accounts_plan_day_check CHECK ((plan_day >= 1)),
    CONSTRAINT accounts_release_waits_for_a_redemption CHECK (((NOT release_requested) OR (open_redemption_id IS NOT NULL))),
    CONSTRAINT accounts_reserve_under_a_lease CHECK (((reserved_minor IS NULL) OR (status = 'LOCKING'::text))),
    CONSTRAINT accounts_reserved_minor_check CHECK ((reserved_minor > 0)),
    CONSTRAINT accounts_resume_status_check CHECK ((resume_status = ANY (ARRAY['WAITING'::text, 'PROCESSING'::text, 'COMPLETED'::text]))),
    CONSTRAINT accounts_status_check CHECK ((status = ANY (ARRAY['WAITING'::text, 'PROCESSING'::text, 'LOCKING'::text, 'COMPLETED'::text])))
)
WITH (fillfactor='70', autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='5000', autovacuum_analyze_scale_factor='0.05', autovacuum_vacuum_cost_delay='0');
ALTER TABLE accounts ALTER COLUMN pool_id SET (n_distinct=1);

ALTER TABLE accounts
    ADD CONSTRAINT accounts_pkey PRIMARY KEY (pool_id, account_id, token_group);

CREATE INDEX accounts_by_plan ON accounts USING btree (pool_id, plan_id) WHERE (plan_id IS NOT NULL);

CREATE TRIGGER account_changed_by_hand BEFORE UPDATE OF pool_id, account_id, status, login_status, plan_id, country_code, balance_minor, labels, fencing_token, resume_status, holder, lease_principal, lease_request_id, lease_acquired_at, lease_expires_at, bound_by_lease, release_requested, lease_end, open_redemption_id, idle_since, created_at, updated_at, plan_day, day_credited_minor, reserved_minor, day_due_at, cooldown_until, hold_until, hold_cause, hold_count, paused, draining, change_id ON accounts FOR EACH ROW WHEN ((new.version = old.version)) EXECUTE FUNCTION account_changed_by_hand();

CREATE TRIGGER account_created_by_hand BEFORE INSERT ON accounts FOR EACH ROW WHEN ((new.version = 0)) EXECUTE FUNCTION account_changed_by_hand();

CREATE TRIGGER account_keep_id BEFORE UPDATE OF pool_id, account_id ON accounts FOR EACH ROW WHEN (((new.pool_id <> old.pool_id) OR (new.account_id <> old.account_id))) EXECUTE FUNCTION account_keep_id();

CREATE TRIGGER account_keep_redemptions BEFORE DELETE ON accounts FOR EACH ROW EXECUTE FUNCTION account_keep_redemptions();

CREATE TRIGGER account_refuse_version BEFORE UPDATE ON accounts FOR EACH ROW WHEN (((new.version <> old.version) AND (new.version <> (old.version + 1)))) EXECUTE FUNCTION account_refuse_version();

ALTER TABLE accounts
    ADD CONSTRAINT accounts_pool_id_fkey FOREIGN KEY (pool_id) REFERENCES pools(pool_id);

ALTER TABLE accounts
    ADD CONSTRAINT accounts_pool_id_plan_id_fkey FOREIGN KEY (pool_id, plan_id) REFERENCES plans(pool_id, plan_id);


-- Table leases

CREATE TABLE leases (
    pool_id text NOT NULL COLLATE "C",
    request_id text NOT NULL COLLATE "C",
    account_id text NOT NULL COLLATE "C",
    expires_at timestamptz NOT NULL,
    principal text DEFAULT ''::text NOT NULL COLLATE "C"
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='5000', autovacuum_vacuum_cost_delay='0');
ALTER TABLE leases ALTER COLUMN pool_id SET (n_distinct=1);

ALTER TABLE leases
    ADD CONSTRAINT leases_pkey PRIMARY KEY (pool_id, request_id, principal);

CREATE INDEX leases_end ON leases USING btree (expires_at, pool_id);


-- Table account_events

CREATE TABLE account_events (
    pool_id text NOT NULL COLLATE "C",
    account_id text NOT NULL COLLATE "C",
    version bigint NOT NULL,
    happened_at timestamptz NOT NULL,
    actor text NOT NULL,
    reason text NOT NULL,
    from_status text COLLATE "C",
    to_status text NOT NULL COLLATE "C",
    fencing_token bigint NOT NULL,
    redemption_id uuid,
    balance_minor bigint NOT NULL,
    lease_expires_at timestamptz,
    change_id uuid,
    principal text DEFAULT ''::text NOT NULL COLLATE "C"
)
WITH (autovacuum_vacuum_insert_scale_factor='0.05');

ALTER TABLE account_events
    ADD CONSTRAINT account_events_pkey PRIMARY KEY (pool_id, account_id, version);

CREATE TRIGGER account_events_append_only BEFORE DELETE OR UPDATE ON account_events FOR EACH ROW EXECUTE FUNCTION refuse_change();


-- Table account_changes

CREATE TABLE account_changes (
    pool_id text NOT NULL COLLATE "C",
    xid bigint DEFAULT ((pg_current_xact_id())::text)::bigint NOT NULL,
    by_hand boolean DEFAULT false NOT NULL,
    server_id uuid,
    account_ids text[] COLLATE "C",
    CONSTRAINT account_changes_are_whole CHECK (((by_hand = (server_id IS NULL)) AND (by_hand OR (account_ids IS NOT NULL))))
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='5000');

ALTER TABLE account_changes
    ADD CONSTRAINT account_changes_pkey PRIMARY KEY (pool_id, xid, by_hand);


-- Table account_credentials

CREATE TABLE account_credentials (
    pool_id text NOT NULL COLLATE "C",
    account_id text NOT NULL COLLATE "C",
    credentials bytea NOT NULL,
    updated_at timestamptz DEFAULT now() NOT NULL
);

ALTER TABLE account_credentials
    ADD CONSTRAINT account_credentials_pkey PRIMARY KEY (pool_id, account_id);

CREATE TRIGGER credentials_check_key BEFORE INSERT OR UPDATE OF credentials ON account_credentials FOR EACH ROW EXECUTE FUNCTION credentials_check_key();


-- Table redemptions

CREATE TABLE redemptions (
    pool_id text NOT NULL COLLATE "C",
    redemption_id uuid NOT NULL,
    account_id text NOT NULL COLLATE "C",
    fencing_token bigint NOT NULL,
    request_id text NOT NULL COLLATE "C",
    holder text NOT NULL COLLATE "C",
    state text NOT NULL COLLATE "C",
    release_on_completion boolean NOT NULL,
    plan_id text COLLATE "C",
    plan_day integer,
    code_fingerprint bytea NOT NULL,
    code_ciphertext bytea,
    code_last4 text NOT NULL,
    expected_minor bigint,
    expected_learned boolean DEFAULT false NOT NULL,
    not_after timestamptz NOT NULL,
    server_id uuid,
    amount_minor bigint,
    amount_currency text COLLATE "C",
    provider_ref text,
    failure_reason text COLLATE "C",
    failure_message text,
    code_spent boolean,
    resolved_by text,
    resolution_reason text,
    resolution_evidence text,
    attempts integer DEFAULT 0 NOT NULL,
    last_answer text,
    next_check_at timestamptz,
    checks integer DEFAULT 0 NOT NULL,
    not_found_checks integer DEFAULT 0 NOT NULL,
    early_check_at timestamptz,
    created_at timestamptz DEFAULT now() NOT NULL,
    updated_at timestamptz DEFAULT now() NOT NULL,
    finished_at timestamptz,
    provider_id text DEFAULT 'holdfast'::text NOT NULL COLLATE "C",
    provider_version integer DEFAULT 1 NOT NULL,
    provider_task text,
    sent_again_at timestamptz,
    checked_until timestamptz,
    reversed_at timestamptz,
    principal text DEFAULT ''::text NOT NULL COLLATE "C",
    resolved_principal text COLLATE "C",
    code_fingerprint_key integer DEFAULT 1 NOT NULL,
    odd_checks integer DEFAULT 0 NOT NULL,
    attempt integer DEFAULT 1 NOT NULL,
    superseded integer DEFAULT 0 NOT NULL,
    CONSTRAINT redemptions_amount_minor_check CHECK ((amount_minor >= 0)),
    CONSTRAINT redemptions_attempt_check CHECK ((attempt >= 1)),
    CONSTRAINT redemptions_code_is_wiped CHECK ((((state = ANY (ARRAY['SUCCEEDED'::text, 'FAILED'::text])) = (finished_at IS NOT NULL)) AND ((finished_at IS NULL) = (code_ciphertext IS NOT NULL)))),
    CONSTRAINT redemptions_expected_minor_check CHECK ((expected_minor > 0)),
    CONSTRAINT redemptions_reverse_a_success CHECK (((reversed_at IS NULL) OR (state = 'SUCCEEDED'::text))),
    CONSTRAINT redemptions_state_check CHECK ((state = ANY (ARRAY['SUBMITTED'::text, 'IN_DOUBT'::text, 'NEEDS_REVIEW'::text, 'SUCCEEDED'::text, 'FAILED'::text]))),
    CONSTRAINT redemptions_success_has_an_amount CHECK (((state <> 'SUCCEEDED'::text) OR ((amount_minor IS NOT NULL) AND (amount_currency IS NOT NULL))))
)
WITH (fillfactor='85', autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='10000', autovacuum_vacuum_insert_scale_factor='0.05', autovacuum_vacuum_cost_delay='0');
ALTER TABLE redemptions ALTER COLUMN pool_id SET (n_distinct=1);

ALTER TABLE redemptions
    ADD CONSTRAINT redemptions_pkey PRIMARY KEY (pool_id, redemption_id);

CREATE INDEX redemptions_by_account ON redemptions USING btree (pool_id, account_id, redemption_id);

CREATE INDEX redemptions_due ON redemptions USING btree (next_check_at, pool_id) WHERE (state = ANY (ARRAY['SUBMITTED'::text, 'IN_DOUBT'::text]));

CREATE INDEX redemptions_failed_code ON redemptions USING btree (pool_id, code_fingerprint) WHERE (state = 'FAILED'::text);

CREATE UNIQUE INDEX redemptions_living_code ON redemptions USING btree (pool_id, code_fingerprint) WHERE ((state = ANY (ARRAY['SUBMITTED'::text, 'IN_DOUBT'::text, 'NEEDS_REVIEW'::text, 'SUCCEEDED'::text])) AND (reversed_at IS NULL));

CREATE UNIQUE INDEX redemptions_open ON redemptions USING btree (pool_id, account_id) WHERE (state = ANY (ARRAY['SUBMITTED'::text, 'IN_DOUBT'::text, 'NEEDS_REVIEW'::text]));

CREATE INDEX redemptions_open_tasks ON redemptions USING btree (provider_id, provider_task) WHERE ((provider_task IS NOT NULL) AND (state = ANY (ARRAY['SUBMITTED'::text, 'IN_DOUBT'::text])));

CREATE UNIQUE INDEX redemptions_request ON redemptions USING btree (pool_id, request_id, principal, attempt);


-- Table redemption_outcomes

CREATE TABLE redemption_outcomes (
    pool_id text NOT NULL COLLATE "C",
    system_id bigint NOT NULL,
    timeline integer NOT NULL,
    xid bigint NOT NULL,
    redemption_ids uuid[] NOT NULL,
    CONSTRAINT redemption_outcomes_redemption_ids_check CHECK ((cardinality(redemption_ids) > 0))
)
WITH (autovacuum_vacuum_insert_scale_factor='0.05');

ALTER TABLE redemption_outcomes
    ADD CONSTRAINT redemption_outcomes_pkey PRIMARY KEY (pool_id, system_id, timeline, xid);

CREATE TRIGGER redemption_outcomes_append_only BEFORE DELETE OR UPDATE ON redemption_outcomes FOR EACH ROW EXECUTE FUNCTION refuse_change();


-- Table subscriptions

CREATE TABLE subscriptions (
    pool_id text NOT NULL COLLATE "C",
    subscription_id text NOT NULL COLLATE "C",
    url text NOT NULL,
    allow_plain boolean NOT NULL,
    states text[] NOT NULL,
    paused boolean NOT NULL,
    created_by text NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    updated_at timestamptz DEFAULT now() NOT NULL,
    secret bytea NOT NULL,
    secret_before bytea,
    secret_before_end timestamptz,
    cursor text NOT NULL,
    claim bigint DEFAULT 0 NOT NULL,
    claimed_by uuid,
    failures integer DEFAULT 0 NOT NULL,
    failing_since timestamptz,
    next_try_at timestamptz,
    last_error text DEFAULT ''::text NOT NULL,
    CONSTRAINT subscriptions_check CHECK (((secret_before IS NULL) = (secret_before_end IS NULL)))
);

ALTER TABLE subscriptions
    ADD CONSTRAINT subscriptions_pkey PRIMARY KEY (pool_id, subscription_id);

CREATE INDEX subscriptions_claimed_by ON subscriptions USING btree (claimed_by) WHERE (claimed_by IS NOT NULL);

CREATE TRIGGER subscription_check_key BEFORE INSERT OR UPDATE OF secret ON subscriptions FOR EACH ROW EXECUTE FUNCTION subscription_check_key();

ALTER TABLE subscriptions
    ADD CONSTRAINT subscriptions_pool_id_fkey FOREIGN KEY (pool_id) REFERENCES pools(pool_id) ON DELETE CASCADE;


-- Table deliveries

CREATE TABLE deliveries (
    pool_id text NOT NULL COLLATE "C",
    subscription_id text NOT NULL COLLATE "C",
    delivery_id text NOT NULL COLLATE "C",
    redemption_id uuid NOT NULL,
    account_id text NOT NULL COLLATE "C",
    attempts integer NOT NULL,
    last_error text NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    tried_since timestamptz,
    last_try_at timestamptz,
    next_try_at timestamptz,
    dead_at timestamptz,
    CONSTRAINT deliveries_check CHECK (((next_try_at IS NULL) = (dead_at IS NOT NULL)))
);

ALTER TABLE deliveries
    ADD CONSTRAINT deliveries_pkey PRIMARY KEY (pool_id, subscription_id, delivery_id);

CREATE INDEX deliveries_living ON deliveries USING btree (pool_id, subscription_id, account_id, delivery_id) WHERE (dead_at IS NULL);

ALTER TABLE deliveries
    ADD CONSTRAINT deliveries_pool_id_subscription_id_fkey FOREIGN KEY (pool_id, subscription_id) REFERENCES subscriptions(pool_id, subscription_id) ON DELETE CASCADE;


-- Table reversals

CREATE TABLE reversals (
    pool_id text NOT NULL COLLATE "C",
    redemption_id uuid NOT NULL,
    number integer NOT NULL,
    state text NOT NULL COLLATE "C",
    reversed_by text NOT NULL,
    reason text NOT NULL,
    evidence text,
    resolved_by text,
    resolution_reason text,
    resolution_evidence text,
    attempts integer DEFAULT 0 NOT NULL,
    last_answer text,
    next_check_at timestamptz,
    checks integer DEFAULT 0 NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    updated_at timestamptz DEFAULT now() NOT NULL,
    finished_at timestamptz,
    principal text DEFAULT ''::text NOT NULL COLLATE "C",
    resolved_principal text COLLATE "C",
    CONSTRAINT reversals_are_finished CHECK (((state = ANY (ARRAY['SUCCEEDED'::text, 'FAILED'::text])) = (finished_at IS NOT NULL))),
    CONSTRAINT reversals_number_check CHECK ((number > 0)),
    CONSTRAINT reversals_state_check CHECK ((state = ANY (ARRAY['REQUESTED'::text, 'IN_DOUBT'::text, 'NEEDS_REVIEW'::text, 'SUCCEEDED'::text, 'FAILED'::text])))
);

ALTER TABLE reversals
    ADD CONSTRAINT reversals_pkey PRIMARY KEY (pool_id, redemption_id, number);

CREATE INDEX reversals_due ON reversals USING btree (next_check_at, pool_id) WHERE (state = ANY (ARRAY['REQUESTED'::text, 'IN_DOUBT'::text]));

CREATE UNIQUE INDEX reversals_living ON reversals USING btree (pool_id, redemption_id) WHERE (state <> 'FAILED'::text);

CREATE TRIGGER reversals_are_kept BEFORE DELETE ON reversals FOR EACH ROW EXECUTE FUNCTION refuse_deletion();


-- Table superseded_resolutions

CREATE TABLE superseded_resolutions (
    pool_id text NOT NULL COLLATE "C",
    redemption_id uuid NOT NULL,
    number integer NOT NULL,
    state text NOT NULL COLLATE "C",
    amount_minor bigint,
    amount_currency text COLLATE "C",
    code_spent boolean,
    resolved_by text NOT NULL,
    resolved_principal text DEFAULT ''::text NOT NULL,
    reason text NOT NULL,
    evidence text,
    finished_at timestamptz NOT NULL,
    superseded_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT superseded_resolutions_number_check CHECK ((number > 0)),
    CONSTRAINT superseded_resolutions_state_check CHECK ((state = ANY (ARRAY['SUCCEEDED'::text, 'FAILED'::text])))
);

ALTER TABLE superseded_resolutions
    ADD CONSTRAINT superseded_resolutions_pkey PRIMARY KEY (pool_id, redemption_id, number);

CREATE TRIGGER superseded_resolutions_append_only BEFORE DELETE OR UPDATE ON superseded_resolutions FOR EACH ROW EXECUTE FUNCTION refuse_change();


-- Table audit_events

CREATE TABLE audit_events (
    pool_id text DEFAULT ''::text NOT NULL COLLATE "C",
    event_id bigint DEFAULT ((((EXTRACT(epoch FROM clock_timestamp()) * (1000000)::numeric))::bigint * 256) + (floor((random() * (256)::double precision)))::bigint) NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    principal text NOT NULL COLLATE "C",
    peer text NOT NULL COLLATE "C",
    action text NOT NULL COLLATE "C",
    subject text NOT NULL COLLATE "C",
    before jsonb,
    after jsonb,
    reason text DEFAULT ''::text NOT NULL,
    CONSTRAINT audit_events_after_check CHECK ((jsonb_typeof(after) = 'object'::text)),
    CONSTRAINT audit_events_before_check CHECK ((jsonb_typeof(before) = 'object'::text))
)
WITH (autovacuum_vacuum_insert_scale_factor='0.05');

ALTER TABLE audit_events
    ADD CONSTRAINT audit_events_pkey PRIMARY KEY (pool_id, event_id);

CREATE INDEX audit_events_newest ON audit_events USING btree (event_id);

CREATE TRIGGER audit_events_append_only BEFORE DELETE OR UPDATE ON audit_events FOR EACH ROW EXECUTE FUNCTION refuse_change();


-- Table servers

CREATE TABLE servers (
    server_id uuid NOT NULL,
    beat bigint DEFAULT 0 NOT NULL,
    beat_at timestamptz DEFAULT now() NOT NULL,
    key_ids integer[]
)
WITH (fillfactor='10', autovacuum_vacuum_threshold='1000', autovacuum_vacuum_scale_factor='0');

ALTER TABLE servers
    ADD CONSTRAINT servers_pkey PRIMARY KEY (server_id);


-- Table providers

CREATE TABLE providers (
    provider_id text NOT NULL COLLATE "C",
    version integer NOT NULL,
    profile text NOT NULL,
    applied_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT providers_version_check CHECK ((version > 0))
);

ALTER TABLE providers
    ADD CONSTRAINT providers_pkey PRIMARY KEY (provider_id, version);

CREATE TRIGGER providers_append_only BEFORE DELETE OR UPDATE ON providers FOR EACH ROW EXECUTE FUNCTION refuse_change();


-- Table provider_keys

CREATE TABLE provider_keys (
    provider_id text NOT NULL COLLATE "C",
    key text NOT NULL COLLATE "C",
    redemption_id uuid NOT NULL
);

ALTER TABLE provider_keys
    ADD CONSTRAINT provider_keys_pkey PRIMARY KEY (provider_id, key);


-- Table provider_limits

CREATE TABLE provider_limits (
    provider_id text NOT NULL COLLATE "C",
    next_call_at timestamptz DEFAULT '-infinity'::timestamptz NOT NULL,
    held_until timestamptz DEFAULT '-infinity'::timestamptz NOT NULL,
    failing boolean DEFAULT false NOT NULL,
    retry_at timestamptz DEFAULT '-infinity'::timestamptz NOT NULL,
    failed_tries integer DEFAULT 0 NOT NULL,
    failing_since timestamptz DEFAULT 'infinity'::timestamptz NOT NULL
);

ALTER TABLE provider_limits
    ADD CONSTRAINT provider_limits_pkey PRIMARY KEY (provider_id);


-- Table provider_slots

CREATE TABLE provider_slots (
    provider_id text NOT NULL COLLATE "C",
    kind text NOT NULL COLLATE "C",
    slot integer NOT NULL,
    taken bigint DEFAULT 0 NOT NULL,
    free_at timestamptz DEFAULT '-infinity'::timestamptz NOT NULL,
    answer_by timestamptz DEFAULT '-infinity'::timestamptz NOT NULL,
    CONSTRAINT provider_slots_kind_check CHECK ((kind = ANY (ARRAY['call'::text, 'brake'::text]))),
    CONSTRAINT provider_slots_slot_check CHECK ((slot >= 0))
);

ALTER TABLE provider_slots
    ADD CONSTRAINT provider_slots_pkey PRIMARY KEY (provider_id, kind, slot);


-- Table tokens

CREATE TABLE tokens (
    name text NOT NULL COLLATE "C",
    secret_hash bytea NOT NULL,
    roles text[] NOT NULL,
    pools text[] NOT NULL,
    created_by text NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    expires_at timestamptz,
    revoked_at timestamptz,
    last_used_at timestamptz,
    CONSTRAINT tokens_are_granted_something CHECK (((cardinality(roles) = cardinality(pools)) AND (cardinality(roles) > 0))),
    CONSTRAINT tokens_secret_hash_check CHECK ((octet_length(secret_hash) = 32))
);

ALTER TABLE tokens
    ADD CONSTRAINT tokens_pkey PRIMARY KEY (name);

ALTER TABLE tokens
    ADD CONSTRAINT tokens_secret_hash_key UNIQUE (secret_hash);

CREATE TRIGGER tokens_changed AFTER UPDATE OF name, secret_hash, roles, pools, expires_at, revoked_at ON tokens FOR EACH ROW EXECUTE FUNCTION count_token_change();

CREATE TRIGGER tokens_made_or_removed AFTER INSERT OR DELETE ON tokens FOR EACH ROW EXECUTE FUNCTION count_token_change();


-- Table token_changes

CREATE TABLE token_changes (
    only_row boolean DEFAULT true NOT NULL,
    changes bigint DEFAULT 0 NOT NULL,
    CONSTRAINT token_changes_only_row_check CHECK (only_row)
);

ALTER TABLE token_changes
    ADD CONSTRAINT token_changes_pkey PRIMARY KEY (only_row);
