-- What makes an account the right one for a card: what its plan wants, and when; what it has done of
-- that; and why it is left in peace for now.

-- What a plan wants. The program sees to it that the numbers fit each other (domain/plan.rs).
ALTER TABLE plans
    -- How much each day may bring. The last day has no limit of its own but the target; a plan
    -- without days is all last day.
    ADD COLUMN day_amounts_minor bigint[] NOT NULL DEFAULT '{}',
    -- The most days that it has ever had: accounts may be on any of them, and are looked for day by day.
    ADD COLUMN days_ever int NOT NULL DEFAULT 1 CHECK (days_ever >= 1),
    -- How far a day may go beyond its amount.
    ADD COLUMN day_tolerance_minor bigint NOT NULL DEFAULT 0 CHECK (day_tolerance_minor >= 0),
    -- From the end of a day until the next one is due. Elapsed time: hours, never calendar days.
    ADD COLUMN day_interval interval NOT NULL DEFAULT interval '24 hours',
    -- From the end of a redemption until the next may begin on the same account.
    ADD COLUMN redemption_interval interval NOT NULL DEFAULT interval '0',
    -- Which cards it takes. Any amount: from smallest to largest (null: no end). Multiples of step,
    -- or only the fixed ones, of which step is the greatest common divisor.
    ADD COLUMN smallest_minor bigint NOT NULL DEFAULT 1 CHECK (smallest_minor > 0),
    ADD COLUMN largest_minor bigint CHECK (largest_minor >= smallest_minor),
    ADD COLUMN step_minor bigint CHECK (step_minor > 0),
    ADD COLUMN fixed_minor bigint[] CHECK (cardinality(fixed_minor) > 0),
    -- For amounts with a step: the least sum of cards, in steps, for each remainder that a sum can
    -- leave when it is divided by the number of these. Whatever is at least that can be filled.
    ADD COLUMN least_steps bigint[] CHECK (cardinality(least_steps) > 0),
    ADD CONSTRAINT plans_steps_are_whole CHECK ((step_minor IS NULL) = (least_steps IS NULL)),
    ADD CONSTRAINT plans_fixed_amounts_have_a_step CHECK (fixed_minor IS NULL OR step_minor IS NOT NULL);

-- Pools: draining ones give out no new leases, and those that are out go on. Holds: how long an
-- account is left in peace after a failure that was its own, by cause; doubled at each one in a row.
ALTER TABLE pools
    ADD COLUMN draining bool NOT NULL DEFAULT false,
    ADD COLUMN holder_share_percent int NOT NULL DEFAULT 50
        CHECK (holder_share_percent BETWEEN 1 AND 100),
    ADD COLUMN hold_login_invalid interval NOT NULL DEFAULT interval '1 hour',
    ADD COLUMN hold_limit_reached interval NOT NULL DEFAULT interval '1 hour',
    ADD COLUMN hold_throttled interval NOT NULL DEFAULT interval '1 minute',
    ADD COLUMN hold_longest interval NOT NULL DEFAULT interval '24 hours';

-- The table is written anew for the generated columns, and nobody gets at it meanwhile: with a million
-- accounts that takes some ten seconds. A server of the version before does its work as before on what
-- this leaves, but knows nothing of days, rests, pauses and what plans take: stop those first.
ALTER TABLE accounts
    -- How far the account is in its plan: the day, counted from 1, and what was credited on it.
    ADD COLUMN plan_day int NOT NULL DEFAULT 1 CHECK (plan_day >= 1),
    ADD COLUMN day_credited_minor bigint NOT NULL DEFAULT 0 CHECK (day_credited_minor >= 0),
    -- What the lease, or the redemption under it, is going to bring: held from acquisition to
    -- settlement. Null when that is not known.
    ADD COLUMN reserved_minor bigint CHECK (reserved_minor > 0),
    -- Not to be used before: the plan's next day, the pause between redemptions, a hold.
    ADD COLUMN day_due_at timestamptz,
    ADD COLUMN cooldown_until timestamptz,
    ADD COLUMN hold_until timestamptz,
    ADD COLUMN hold_cause text COLLATE "C"
        CHECK (hold_cause IN ('LOGIN_INVALID', 'LIMIT_REACHED', 'THROTTLED')),
    -- Failures in a row that were the account's own.
    ADD COLUMN hold_count int NOT NULL DEFAULT 0 CHECK (hold_count >= 0),
    -- By a person's wish: nothing new is begun on it, or only nothing new is leased.
    ADD COLUMN paused bool NOT NULL DEFAULT false,
    ADD COLUMN draining bool NOT NULL DEFAULT false,
    -- Free, and not to be used before usable_at: out of the index that acquire walks. Kept by the
    -- trigger below.
    ADD COLUMN parked bool NOT NULL DEFAULT false,
    ADD COLUMN usable_at timestamptz
        GENERATED ALWAYS AS (GREATEST(day_due_at, cooldown_until, hold_until)) STORED,
    -- What acquire's index is made of. An account without a plan has no fullness.
    ADD COLUMN plan_key text COLLATE "C" GENERATED ALWAYS AS (COALESCE(plan_id, '')) STORED,
    ADD COLUMN fullness_minor bigint
        GENERATED ALWAYS AS (CASE WHEN plan_id IS NULL THEN 0 ELSE balance_minor END) STORED,
    ADD CONSTRAINT accounts_reserve_under_a_lease CHECK (
        reserved_minor IS NULL OR status = 'LOCKING'
    ),
    ADD CONSTRAINT accounts_days_belong_to_a_plan CHECK (
        plan_id IS NOT NULL OR (plan_day = 1 AND day_credited_minor = 0 AND day_due_at IS NULL)
    ),
    ADD CONSTRAINT accounts_hold_has_a_cause CHECK ((hold_until IS NULL) = (hold_cause IS NULL));

-- On which day of which plan the account was when the redemption began; null without a plan.
ALTER TABLE redemptions
    ADD COLUMN plan_id text COLLATE "C",
    ADD COLUMN plan_day int;

-- What acquire walks, in its order: for each plan (none: '') 'PROCESSING' before 'WAITING', and for each
-- day the fullest first, then the longest unused. What was credited on the day comes last: an account
-- whose day is too full for a card is passed by without a look at its row.
DROP INDEX accounts_free;
DROP INDEX accounts_free_by_plan;
CREATE INDEX accounts_free ON accounts
    (pool_id, plan_key, status, plan_day, fullness_minor DESC, idle_since, account_id,
     day_credited_minor)
    WHERE status IN ('PROCESSING', 'WAITING') AND login_status = 'ACTIVE'
        AND NOT paused AND NOT draining AND NOT parked;

-- What becomes usable by the passing of time.
CREATE INDEX accounts_parked ON accounts (pool_id, usable_at) WHERE parked;

-- Whose plan it is, for a plan that is to be deleted.
CREATE INDEX accounts_by_plan ON accounts (pool_id, plan_id) WHERE plan_id IS NOT NULL;

-- THE rule of what a plan takes, in the database's words; domain/plan.rs says the same, and a test
-- compares the two.

-- Whether cards that the plan takes can add up to an amount.
CREATE FUNCTION plan_fills(
    amount bigint, smallest bigint, largest bigint, step bigint, least_steps bigint[]
) RETURNS bool LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT amount = 0 OR (amount >= smallest AND CASE
        WHEN step IS NOT NULL THEN
            amount % step = 0
            AND least_steps[1 + (amount / step) % cardinality(least_steps)] <= amount / step
        WHEN largest IS NULL THEN true
        ELSE (amount + largest - 1) / largest * smallest <= amount
    END)
$$;

-- How much more the account's plan takes today.
CREATE FUNCTION plan_room(
    balance bigint, day int, day_credited bigint,
    target bigint, day_amounts bigint[], day_tolerance bigint
) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE
        WHEN day < cardinality(day_amounts)
            THEN LEAST(target - balance, day_amounts[day] + day_tolerance - day_credited)
        ELSE target - balance
    END
$$;

-- Whether there is any card that the account's plan would take now.
CREATE FUNCTION plan_wants(
    balance bigint, day int, day_credited bigint,
    target bigint, day_amounts bigint[], day_tolerance bigint,
    smallest bigint, largest bigint, step bigint, fixed bigint[], least_steps bigint[]
) RETURNS bool LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    remaining CONSTANT bigint := target - balance;
    room CONSTANT bigint :=
        plan_room(balance, day, day_credited, target, day_amounts, day_tolerance);
    most bigint;
BEGIN
    IF room < smallest THEN
        RETURN false;
    ELSIF fixed IS NOT NULL THEN
        RETURN EXISTS (
            SELECT FROM unnest(fixed) AS f (amount)
            WHERE f.amount <= room
              AND plan_fills(remaining - f.amount, smallest, largest, step, least_steps)
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
$$;

-- Why an account's plan would not take a card of an amount now (null: of any); null when it would.
CREATE FUNCTION plan_misfit(
    amount bigint, balance bigint, day int, day_credited bigint,
    target bigint, day_amounts bigint[], day_tolerance bigint,
    smallest bigint, largest bigint, step bigint, fixed bigint[], least_steps bigint[]
) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE
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
    END
$$;

-- First come, first served: each of those who wait, in their order, gets the first account of those
-- that fit its wish which nobody before it has taken. Wishes and accounts are numbered from 1.
-- wishes: of each who waits. candidate_wishes and candidate_accounts: which account fits which wish,
-- by wish and the best first. Answers with a candidate's place for each who waits, or null.
CREATE FUNCTION first_come(wishes int[], candidate_wishes int[], candidate_accounts int[])
RETURNS int[] LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    given int[] := '{}';
    taken bool[] := '{}';
    -- Where the search for each wish goes on: what was taken stays taken.
    next_of int[] := '{}';
    place int;
    wish int;
    chosen int;
BEGIN
    FOR place IN REVERSE COALESCE(cardinality(candidate_wishes), 0) .. 1 LOOP
        next_of[candidate_wishes[place]] := place;
    END LOOP;
    FOREACH wish IN ARRAY COALESCE(wishes, '{}') LOOP
        chosen := NULL;
        place := next_of[wish];
        WHILE candidate_wishes[place] = wish LOOP
            IF taken[candidate_accounts[place]] IS NULL THEN
                chosen := place;
                taken[candidate_accounts[place]] := true;
                EXIT;
            END IF;
            place := place + 1;
        END LOOP;
        next_of[wish] := place;
        given := given || chosen;
    END LOOP;
    RETURN given;
END
$$;

-- As before, and it parks what is not to be used yet. That the time has come changes nothing of an
-- account that anybody could see, and leaves no event.
CREATE OR REPLACE FUNCTION account_note_event() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    was accounts%ROWTYPE;
BEGIN
    NEW.parked := NEW.status IN ('WAITING', 'PROCESSING')
        AND COALESCE(GREATEST(NEW.day_due_at, NEW.cooldown_until, NEW.hold_until) > now(), false);
    -- Whoever ends a lease, or gives another plan or takes it away, and does not know of these: a server
    -- of the version before, or a person. A plan begins on its first day.
    IF NEW.status <> 'LOCKING' THEN
        NEW.reserved_minor := NULL;
    END IF;
    IF NEW.plan_id IS NULL OR TG_OP = 'UPDATE' AND NEW.plan_id IS DISTINCT FROM OLD.plan_id THEN
        NEW.plan_day := 1;
        NEW.day_credited_minor := 0;
        NEW.day_due_at := NULL;
    END IF;
    IF TG_OP = 'UPDATE' THEN
        was := OLD;
        IF NEW.change_reason = 'due' THEN
            NEW.change_reason := NULL;
            RETURN NEW;
        END IF;
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

-- As before, and what the redemption is expected to bring is reserved on the account.
CREATE OR REPLACE FUNCTION redemption_mark_open() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE accounts
    SET open_redemption_id = NEW.redemption_id,
        reserved_minor = COALESCE(NEW.expected_minor, reserved_minor),
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
