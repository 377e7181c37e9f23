-- Functions find what they name whatever the caller's search_path is: a person who writes `UPDATE hf.accounts …`,
-- or a second installation in the same database. Each function has one of three forms:
--   * a body that Postgres parses once, when the function is made (RETURN …): it keeps what it found, and is still
--     inlined into statements;
--   * a search_path of its own (SET search_path), for functions that run seldom. It costs some 3 µs a call;
--   * names with their schema, for the functions that run for each row of the program's statements.
-- Tables, indexes, defaults, checks and foreign keys keep what they found when they were made. A later migration
-- that makes or replaces a function gives it one of these forms; a test reads all of them.

-- Values alone: THE rule of what a plan takes, as before.

CREATE OR REPLACE FUNCTION plan_fills(
    amount bigint, smallest bigint, largest bigint, step bigint, least_steps bigint[]
) RETURNS bool LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN amount = 0 OR (amount >= smallest AND CASE
    WHEN step IS NOT NULL THEN
        amount % step = 0
        AND least_steps[1 + (amount / step) % cardinality(least_steps)] <= amount / step
    WHEN largest IS NULL THEN true
    ELSE (amount + largest - 1) / largest * smallest <= amount
END);

CREATE OR REPLACE FUNCTION plan_room(
    balance bigint, day int, day_credited bigint,
    target bigint, day_amounts bigint[], day_tolerance bigint
) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN day < cardinality(day_amounts)
        THEN LEAST(target - balance, day_amounts[day] + day_tolerance - day_credited)
    ELSE target - balance
END;

CREATE OR REPLACE FUNCTION plan_misfit(
    amount bigint, balance bigint, day int, day_credited bigint,
    target bigint, day_amounts bigint[], day_tolerance bigint,
    smallest bigint, largest bigint, step bigint, fixed bigint[], least_steps bigint[]
) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN balance >= target THEN 'too_full'
    WHEN amount IS NULL THEN CASE
        WHEN NOT plan_wants(
            balance, day, day_credited, target, day_amounts, day_tolerance,
            smallest, largest, step, fixed, least_steps
        ) THEN 'remainder'
    END
    WHEN amount > target - balance THEN 'too_full'
    WHEN amount < smallest OR amount > largest OR amount % step <> 0 OR NOT amount = ANY (fixed)
        THEN 'denomination'
    WHEN NOT plan_fills(target - balance - amount, smallest, largest, step, least_steps)
        THEN 'remainder'
    WHEN amount > plan_room(balance, day, day_credited, target, day_amounts, day_tolerance)
        THEN 'day_full'
END;

-- first_come names nothing, and stays as it is.

DO $migration$
DECLARE
    -- Where this installation's tables are, and with them its functions.
    home CONSTANT text := (
        SELECT quote_ident(n.nspname)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid = 'accounts'::regclass
    );
    seldom text;
BEGIN
    FOREACH seldom IN ARRAY ARRAY[
        'account_note_first_event', 'account_keep_redemptions', 'account_keep_id', 'refuse_change',
        'redemption_mark_open', 'redemptions_mark_open'
    ] LOOP
        -- Temporary tables come last: otherwise they come first, whatever they are called.
        EXECUTE format('ALTER FUNCTION %s.%I() SET search_path = pg_catalog, %s, pg_temp', home, seldom, home);
    END LOOP;

    -- As before, but for the names.
    EXECUTE replace($function$
        CREATE OR REPLACE FUNCTION HOME.plan_wants(
            balance bigint, day int, day_credited bigint,
            target bigint, day_amounts bigint[], day_tolerance bigint,
            smallest bigint, largest bigint, step bigint, fixed bigint[], least_steps bigint[]
        ) RETURNS bool LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
        DECLARE
            remaining CONSTANT bigint := target - balance;
            room CONSTANT bigint :=
                HOME.plan_room(balance, day, day_credited, target, day_amounts, day_tolerance);
            most bigint;
        BEGIN
            IF room < smallest THEN
                RETURN false;
            ELSIF fixed IS NOT NULL THEN
                RETURN EXISTS (
                    SELECT FROM unnest(fixed) AS f (amount)
                    WHERE f.amount <= room
                      AND HOME.plan_fills(remaining - f.amount, smallest, largest, step, least_steps)
                );
            ELSIF step IS NOT NULL THEN
                RETURN remaining % step = 0;
            END IF;
            most := LEAST(room, COALESCE(largest, room));
            IF remaining <= most THEN
                RETURN true;
            END IF;
            -- After one card of at most `most`, some number of cards must still reach the rest.
            RETURN (CASE
                WHEN largest IS NULL THEN 2
                ELSE 1 + (remaining - most + largest - 1) / largest
            END) * smallest <= remaining;
        END
        $$
    $function$, 'HOME', home);

    -- As before, but for the names.
    EXECUTE replace($function$
        CREATE OR REPLACE FUNCTION HOME.account_note_event() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            -- Whoever gives another plan or takes it away, and does not know of days: a server of the version
            -- before, or a person. A plan begins on its first day.
            IF NEW.plan_id IS DISTINCT FROM OLD.plan_id
                OR NEW.plan_id IS NULL
                    AND (NEW.plan_day <> 1 OR NEW.day_credited_minor <> 0 OR NEW.day_due_at IS NOT NULL)
            THEN
                NEW.plan_day := 1;
                NEW.day_credited_minor := 0;
                NEW.day_due_at := NULL;
            END IF;
            -- That the time has come changes nothing of an account that anybody could see, and leaves no event.
            IF OLD.parked OR NEW.parked OR NEW.day_due_at IS NOT NULL OR NEW.cooldown_until IS NOT NULL
                OR NEW.hold_until IS NOT NULL
            THEN
                NEW.parked := NEW.status IN ('WAITING', 'PROCESSING')
                    AND COALESCE(GREATEST(NEW.day_due_at, NEW.cooldown_until, NEW.hold_until) > now(), false);
                IF NEW.change_reason = 'due' THEN
                    NEW.change_reason := NULL;
                    RETURN NEW;
                END IF;
            END IF;
            -- What belongs to a lease ends with it, whoever ends it.
            IF NEW.status <> 'LOCKING' AND (NEW.lease_request_id IS NOT NULL OR NEW.reserved_minor IS NOT NULL) THEN
                NEW.lease_request_id := NULL;
                NEW.reserved_minor := NULL;
            END IF;
            NEW.version := OLD.version + 1;
            NEW.updated_at := now();
            INSERT INTO HOME.account_events (
                pool_id, account_id, version, happened_at, actor, reason, from_status, to_status,
                fencing_token, redemption_id, balance_minor, lease_expires_at
            ) VALUES (
                NEW.pool_id, NEW.account_id, NEW.version, now(),
                COALESCE(NEW.change_actor, 'database user ' || session_user),
                COALESCE(NEW.change_reason, 'changed'),
                OLD.status, NEW.status, NEW.fencing_token,
                COALESCE(NEW.open_redemption_id, OLD.open_redemption_id),
                NEW.balance_minor,
                CASE WHEN NEW.status = 'LOCKING' THEN NEW.lease_expires_at END
            );
            NEW.change_actor := NULL;
            NEW.change_reason := NULL;
            RETURN NEW;
        END
        $$
    $function$, 'HOME', home);
END
$migration$;
