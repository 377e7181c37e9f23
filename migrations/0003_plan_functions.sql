-- The rule of what a plan takes, for choosing an account. domain/plan.rs has the same rule, and decides by it; a test
-- compares the two.

-- Whether cards that the plan takes can add up to an amount.
CREATE FUNCTION plan_fills(
    amount bigint, smallest bigint, largest bigint, step bigint, least_steps bigint[]
) RETURNS bool LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN amount = 0 OR (amount >= smallest AND CASE
    WHEN step IS NOT NULL THEN
        amount % step = 0
        AND least_steps[1 + (amount / step) % cardinality(least_steps)] <= amount / step
    WHEN largest IS NULL THEN true
    ELSE (amount + largest - 1) / largest * smallest <= amount
END);

-- How much more the account's plan takes today.
CREATE FUNCTION plan_room(
    balance bigint, day int, day_credited bigint,
    target bigint, day_amounts bigint[], day_tolerance bigint
) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN day < cardinality(day_amounts)
        THEN LEAST(target - balance, day_amounts[day] + day_tolerance - day_credited)
    ELSE target - balance
END;

DO $migration$
DECLARE
    -- The schema of this installation.
    home CONSTANT text := (
        SELECT quote_ident(n.nspname)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid = 'pools'::regclass
    );
BEGIN
    -- Whether there is any card that the account's plan would take now.
    EXECUTE replace($function$
        CREATE FUNCTION HOME.plan_wants(
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
END
$migration$;

-- Why an account's plan would not take a card of an amount now (null: of any); null when it would.
CREATE FUNCTION plan_misfit(
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
