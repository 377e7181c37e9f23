-- Pools, and the plans that their accounts are filled for.
--
-- Text that is compared or ordered is COLLATE "C": byte order is the same on every machine, and the cheapest. pool_id
-- is the first column of every key, so that the tables can be distributed by it.

CREATE TABLE pools (
    pool_id text COLLATE "C" PRIMARY KEY,
    currency_code text COLLATE "C" NOT NULL CHECK (currency_code ~ '^[A-Z]{3}$'),
    default_lease interval NOT NULL,
    min_lease interval NOT NULL,
    max_lease interval NOT NULL,
    -- Nothing new is begun. What was begun is finished.
    paused bool NOT NULL DEFAULT false,
    -- What is done with a redemption that was credited with another amount than expected.
    amount_mismatch text COLLATE "C" NOT NULL CHECK (amount_mismatch IN ('ACCEPT', 'NEEDS_REVIEW')),
    -- No new leases are given out. Those that are out go on.
    draining bool NOT NULL DEFAULT false,
    -- Which share of the recent leases a holder may have before it waits behind others.
    holder_share_percent int NOT NULL DEFAULT 50 CHECK (holder_share_percent BETWEEN 1 AND 100),
    -- How long an account is on hold after a failure of its own, by cause. Doubled at each one in a row, up to the
    -- longest.
    hold_login_invalid interval NOT NULL DEFAULT interval '1 hour',
    hold_limit_reached interval NOT NULL DEFAULT interval '1 hour',
    hold_throttled interval NOT NULL DEFAULT interval '1 minute',
    hold_longest interval NOT NULL DEFAULT interval '24 hours',
    -- Raised by every change of the pool or of one of its plans. A change of an account that was decided from other
    -- terms than the present ones is refused, and decided again.
    revision bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pools_lease_bounds CHECK (
        interval '1 second' <= min_lease
        AND min_lease <= default_lease
        AND default_lease <= max_lease
        AND max_lease <= interval '24 hours'
    )
);

-- The program ensures that the numbers of a plan fit each other: domain/plan.rs.
CREATE TABLE plans (
    pool_id text COLLATE "C" NOT NULL REFERENCES pools (pool_id),
    plan_id text COLLATE "C" NOT NULL,
    -- The balance at which an account is COMPLETED, in minor units.
    target_minor bigint NOT NULL CHECK (target_minor > 0),

    -- How much each day may bring. The last day is limited by the target alone. A plan without days consists of a
    -- last day.
    day_amounts_minor bigint[] NOT NULL DEFAULT '{}',
    -- How far a day may go beyond its amount.
    day_tolerance_minor bigint NOT NULL DEFAULT 0 CHECK (day_tolerance_minor >= 0),
    -- From the end of a day until the next one is due. Elapsed time: hours, never calendar days.
    day_interval interval NOT NULL DEFAULT interval '24 hours',
    -- From the end of a redemption until the next may begin on the same account.
    redemption_interval interval NOT NULL DEFAULT interval '0',

    -- Which cards it takes. Any amount: from smallest to largest (null: no end). Multiples of step, or only the fixed
    -- ones, whose greatest common divisor is step.
    smallest_minor bigint NOT NULL DEFAULT 1 CHECK (smallest_minor > 0),
    largest_minor bigint CHECK (largest_minor >= smallest_minor),
    step_minor bigint CHECK (step_minor > 0),
    fixed_minor bigint[] CHECK (cardinality(fixed_minor) > 0),

    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (pool_id, plan_id),
    CONSTRAINT plans_fixed_amounts_have_a_step CHECK (fixed_minor IS NULL OR step_minor IS NOT NULL)
);

-- The pool's revision.
--
-- Functions find what they name whatever the caller's search_path is: a person who writes `UPDATE hf.accounts …`, or
-- a second installation in the same database. Each function has one of three forms, and a test reads all of them:
--   * a body that Postgres parses once, when the function is made (RETURN …): names are resolved then, and the
--     function is still inlined into statements;
--   * a search_path of its own (SET search_path), for functions that run seldom. It costs some 3 µs a call;
--   * names with their schema (HOME below), for the functions that run for each row of the program's statements.
-- Tables, indexes, defaults, checks and foreign keys keep what their names resolved to when they were made.
DO $migration$
DECLARE
    -- The schema of this installation.
    home CONSTANT text := (
        SELECT quote_ident(n.nspname)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid = 'pools'::regclass
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
END
$migration$;

CREATE TRIGGER pool_raise_revision BEFORE UPDATE ON pools
    FOR EACH ROW EXECUTE FUNCTION pool_raise_revision();
CREATE TRIGGER plan_raise_revision AFTER INSERT OR UPDATE OR DELETE ON plans
    FOR EACH ROW EXECUTE FUNCTION plan_raise_revision();
