-- What each transition costs the database, row by row: docs/performance/what-costs.md has the figures.

-- Lease requests. The request of a lease that has ended is kept no longer: the index below is of those
-- that are out, by a condition that no other statement happens to imply. By the one that it had
-- (status = 'LOCKING') Postgres took it for the way to a few accounts, when few were locked as the plan
-- was made, and read every lease of the pool for each of them later.
DROP INDEX accounts_lease_request;
ALTER TABLE accounts DISABLE TRIGGER account_note_event;
UPDATE accounts SET lease_request_id = NULL WHERE status <> 'LOCKING' AND lease_request_id IS NOT NULL;
ALTER TABLE accounts ENABLE TRIGGER account_note_event;

-- One lease for each request, and what the sweeper walks. lease_expires_at is not in it, so that a
-- renewal is a HOT update.
CREATE UNIQUE INDEX accounts_lease_request ON accounts (pool_id, lease_request_id)
    WHERE lease_request_id IS NOT NULL;

-- What acquire walks, as before; but all of it upwards, so that a walk can begin at a place in the order
-- (fullness, then idle_since): behind what earlier walks have taken, whose dead entries stay until vacuum
-- comes, or for as long as somebody's old transaction is open.
DROP INDEX accounts_free;
CREATE INDEX accounts_free ON accounts
    (pool_id, plan_key, status, plan_day, (-fullness_minor), idle_since, account_id, day_credited_minor)
    WHERE status IN ('PROCESSING', 'WAITING') AND login_status = 'ACTIVE'
        AND NOT paused AND NOT draining AND NOT parked;

-- An account that has redemptions stays. By a trigger, which costs whoever deletes; the key cost a look
-- at the account for each redemption that was begun, beside the one that redemption_mark_open takes.
ALTER TABLE redemptions DROP CONSTRAINT redemptions_pool_id_account_id_fkey;

CREATE FUNCTION account_keep_redemptions() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM redemptions r WHERE r.pool_id = OLD.pool_id AND r.account_id = OLD.account_id
    ) THEN
        RAISE foreign_key_violation USING
            MESSAGE = format('account %s of pool %s has redemptions', OLD.account_id, OLD.pool_id);
    END IF;
    RETURN OLD;
END
$$;

CREATE TRIGGER account_keep_redemptions BEFORE DELETE ON accounts
    FOR EACH ROW EXECUTE FUNCTION account_keep_redemptions();

-- The event of a change, as before. What few changes need is asked for once, and done where it is needed:
-- each expression and each assignment here costs every row of every lane's statement.
CREATE OR REPLACE FUNCTION account_note_event() RETURNS trigger LANGUAGE plpgsql AS $$
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
    INSERT INTO account_events (
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
$$;

-- An account's first event.
CREATE FUNCTION account_note_first_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
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
    -- An INSERT … ON CONFLICT of an account that is there comes by here too, and adds nothing.
    ON CONFLICT DO NOTHING;
    NEW.change_actor := NULL;
    NEW.change_reason := NULL;
    RETURN NEW;
END
$$;

DROP TRIGGER account_note_event ON accounts;
CREATE TRIGGER account_note_event BEFORE UPDATE ON accounts
    FOR EACH ROW EXECUTE FUNCTION account_note_event();
CREATE TRIGGER account_note_first_event BEFORE INSERT ON accounts
    FOR EACH ROW EXECUTE FUNCTION account_note_first_event();

-- Open redemptions are marked on their accounts by one UPDATE for all rows of the statement, where the
-- database lets triggers see those: Postgres prepares the checks of a table anew for each statement, and
-- an UPDATE for each row cost more than the row that it marks. Citus lets no trigger see more than its
-- row: there the one of the migrations before stays.
CREATE FUNCTION redemptions_mark_open() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    marked bigint;
    opened bigint;
BEGIN
    UPDATE accounts a
    SET open_redemption_id = n.redemption_id,
        reserved_minor = COALESCE(n.expected_minor, a.reserved_minor),
        change_actor = n.holder,
        change_reason = 'redeem_begun'
    FROM new_redemptions n
    WHERE n.state IN ('SUBMITTED', 'IN_DOUBT', 'NEEDS_REVIEW')
      AND a.pool_id = n.pool_id
      AND a.account_id = n.account_id
      AND a.fencing_token = n.fencing_token
      AND a.status = 'LOCKING'
      AND a.open_redemption_id IS NULL;
    GET DIAGNOSTICS marked = ROW_COUNT;
    SELECT count(*) INTO opened
    FROM new_redemptions n
    WHERE n.state IN ('SUBMITTED', 'IN_DOUBT', 'NEEDS_REVIEW');
    IF marked <> opened THEN
        RAISE EXCEPTION '% of % redemptions do not fit the lease on their account', opened - marked, opened;
    END IF;
    RETURN NULL;
END
$$;

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'citus') THEN
        DROP TRIGGER redemption_mark_open ON redemptions;
        CREATE TRIGGER redemptions_mark_open AFTER INSERT ON redemptions
            REFERENCING NEW TABLE AS new_redemptions
            FOR EACH STATEMENT EXECUTE FUNCTION redemptions_mark_open();
    END IF;
END
$$;
