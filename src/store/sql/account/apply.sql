-- Apply: changes of accounts that domain/account.rs decided, each from a version that it knew, and the outcomes of
-- redemptions that go with them. Guards the version and the change it was decided from, the pool's revision, and
-- time; decides nothing.
-- $1 pool_id, $2 the revision of the pool from which they were decided, $3 the changes: at most one of an account;
-- $4 the server, $5 what is recorded of changes that people make, each with its change.
-- Answers with the accounts that were changed, and what a redemption has that the program does not know. One that
-- is missing has another version or another revision, or its guard does not hold, or its redemption is in another
-- state, or somebody holds its row: then it is as it was.
WITH asked AS MATERIALIZED (
    SELECT c.*
    FROM unnest($3::account_change[]) AS c
    WHERE EXISTS (SELECT FROM pools p WHERE p.pool_id = $1 AND p.revision = $2)
),
-- Locked in the order of their keys. SKIP LOCKED: one row that somebody holds does not hold up the others.
cur AS MATERIALIZED (
    SELECT
        c.*,
        a.status AS from_status,
        a.open_redemption_id AS was_open,
        a.lease_request_id AS was_request_id,
        a.lease_principal AS was_principal,
        now() AS at,
        ((now() AT TIME ZONE 'utc') + c.lease_for) AT TIME ZONE 'utc' AS lease_ends_at,
        ((now() AT TIME ZONE 'utc') + c.day_due_in) AT TIME ZONE 'utc' AS next_day_at,
        ((now() AT TIME ZONE 'utc') + c.cooldown_for) AT TIME ZONE 'utc' AS cooldown_at,
        ((now() AT TIME ZONE 'utc') + c.hold_for) AT TIME ZONE 'utc' AS hold_at
    FROM asked c
    JOIN accounts a
        ON a.pool_id = $1 AND a.account_id = c.account_id AND a.token_group = c.seen_token / 16
    WHERE a.pool_id = $1
      AND a.version = c.version
      AND a.change_id = c.seen
      AND (c.guard <> 'alive' OR a.lease_expires_at > now())
      AND (c.guard <> 'ended' OR a.lease_expires_at <= now())
      AND (c.guard <> 'free' OR a.idle_since <= now())
      AND (c.guard <> 'free' OR a.usable_at IS NULL OR a.usable_at <= now())
      AND (c.guard <> 'due' OR a.day_due_at IS NULL OR a.day_due_at <= now())
    ORDER BY a.account_id
    FOR NO KEY UPDATE OF a SKIP LOCKED
),
-- A redemption that somebody holds does not hold up the others either. Of a success a reversal is recorded, unless a
-- person corrects what a person had said. Then what was recorded is kept.
outcome AS MATERIALIZED (
    SELECT
        k.*,
        k.reason = 'resolution_corrected' AS corrects,
        k.reason <> 'resolution_corrected' AND k.known_state IS NOT DISTINCT FROM 'SUCCEEDED' AS reverses,
        r.state AS said_state,
        r.amount_minor AS said_amount_minor,
        r.amount_currency AS said_amount_currency,
        r.code_spent AS said_code_spent,
        r.superseded AS said_superseded,
        r.resolved_by AS said_by,
        r.resolved_principal AS said_principal,
        r.resolution_reason AS said_reason,
        r.resolution_evidence AS said_evidence,
        r.finished_at AS said_at
    FROM cur k
    JOIN redemptions r ON r.pool_id = $1 AND r.redemption_id = k.redemption_id
    WHERE r.pool_id = $1
    ORDER BY r.redemption_id
    FOR NO KEY UPDATE OF r SKIP LOCKED
),
-- The newest reversal, also where it was recorded as failed: what is known for certain overturns that.
taken_back AS (
    UPDATE reversals v
    SET state = 'SUCCEEDED',
        resolved_by = COALESCE(k.resolved_by, v.resolved_by),
        resolved_principal = COALESCE(k.resolved_principal, v.resolved_principal),
        resolution_reason = COALESCE(k.resolution_reason, v.resolution_reason),
        resolution_evidence = COALESCE(k.resolution_evidence, v.resolution_evidence),
        attempts = v.attempts + k.attempts,
        last_answer = COALESCE(k.last_answer, v.last_answer),
        next_check_at = NULL,
        updated_at = now(),
        finished_at = now()
    FROM outcome k
    WHERE v.pool_id = $1
      AND v.redemption_id = k.redemption_id
      AND k.reverses
      AND v.state <> 'SUCCEEDED'
      AND NOT EXISTS (
          SELECT FROM reversals n
          WHERE n.pool_id = $1 AND n.redemption_id = v.redemption_id AND n.number > v.number
      )
    RETURNING v.redemption_id
),
settled AS (
    UPDATE redemptions r
    SET state = k.state,
        amount_minor = CASE WHEN k.corrects THEN k.amount_minor ELSE COALESCE(k.amount_minor, r.amount_minor) END,
        amount_currency = CASE
            WHEN k.corrects THEN k.amount_currency ELSE COALESCE(k.amount_currency, r.amount_currency)
        END,
        provider_ref = COALESCE(k.provider_ref, r.provider_ref),
        failure_reason = k.failure_reason,
        failure_message = k.failure_message,
        code_spent = k.code_spent,
        -- Those of a reversal are its own.
        attempts = r.attempts + CASE WHEN k.reverses THEN 0 ELSE k.attempts END,
        last_answer = CASE WHEN k.reverses THEN r.last_answer ELSE COALESCE(k.last_answer, r.last_answer) END,
        resolved_by = CASE WHEN k.reverses THEN r.resolved_by ELSE COALESCE(k.resolved_by, r.resolved_by) END,
        resolved_principal = CASE
            WHEN k.reverses THEN r.resolved_principal ELSE COALESCE(k.resolved_principal, r.resolved_principal)
        END,
        resolution_reason =
            CASE WHEN k.reverses THEN r.resolution_reason ELSE COALESCE(k.resolution_reason, r.resolution_reason) END,
        resolution_evidence = CASE
            WHEN k.reverses THEN r.resolution_evidence
            WHEN k.corrects THEN k.resolution_evidence
            ELSE COALESCE(k.resolution_evidence, r.resolution_evidence)
        END,
        superseded = r.superseded + CASE WHEN k.corrects THEN 1 ELSE 0 END,
        code_ciphertext = NULL,
        next_check_at = NULL,
        updated_at = now(),
        finished_at = CASE WHEN k.reverses THEN r.finished_at ELSE k.at END,
        reversed_at = CASE WHEN k.reverses THEN k.at END
    FROM outcome k
    WHERE r.pool_id = $1
      AND r.redemption_id = k.redemption_id
      AND r.state = COALESCE(k.known_state, r.state)
      -- A failure is settled again where the provider credited it late, a success is taken back once, a person's word is
      -- corrected, and nothing else is.
      AND (k.reverses OR k.corrects OR (r.finished_at IS NULL) = (COALESCE(k.known_state, '') <> 'FAILED'))
      AND (
          NOT k.corrects
          OR r.finished_at IS NOT NULL
          AND r.resolved_by IS NOT NULL
          AND NOT EXISTS (
              SELECT FROM reversals n
              WHERE n.pool_id = $1 AND n.redemption_id = r.redemption_id AND n.state <> 'FAILED'
          )
      )
      AND r.reversed_at IS NULL
      AND (NOT k.reverses OR r.redemption_id IN (SELECT t.redemption_id FROM taken_back t))
    RETURNING
        r.redemption_id, r.amount_minor, r.amount_currency, r.provider_ref, r.attempts, r.last_answer,
        r.resolved_by, r.resolved_principal, r.resolution_reason, r.resolution_evidence
),
-- What a person had said, where another word takes its place.
superseded AS (
    INSERT INTO superseded_resolutions (
        pool_id, redemption_id, number, state, amount_minor, amount_currency, code_spent, resolved_by,
        resolved_principal, reason, evidence, finished_at
    )
    SELECT
        $1, k.redemption_id,
        k.said_superseded + 1,
        k.said_state, k.said_amount_minor, k.said_amount_currency, k.said_code_spent, k.said_by,
        COALESCE(k.said_principal, ''), k.said_reason, k.said_evidence, k.said_at
    FROM outcome k
    WHERE k.corrects AND k.redemption_id IN (SELECT s.redemption_id FROM settled s)
),
-- A request that has a lease gets no second one.
leased AS (
    INSERT INTO leases (pool_id, request_id, principal, account_id, expires_at)
    SELECT $1, k.lease_request_id, k.lease_principal, k.account_id, k.lease_ends_at
    FROM cur k
    WHERE k.lease_request_id IS NOT NULL
    ORDER BY k.lease_request_id, k.lease_principal
    ON CONFLICT DO NOTHING
    RETURNING account_id
),
done AS (
    UPDATE accounts a
    SET status = k.status,
        resume_status = k.resume_status,
        fencing_token = k.fencing_token,
        holder = COALESCE(k.holder, a.holder),
        lease_principal = COALESCE(k.lease_principal, a.lease_principal),
        lease_request_id = CASE
            WHEN k.status = 'LOCKING' THEN COALESCE(k.lease_request_id, a.lease_request_id)
        END,
        lease_acquired_at = CASE WHEN k.holder IS NOT NULL THEN k.at ELSE a.lease_acquired_at END,
        lease_expires_at = COALESCE(k.lease_ends_at, a.lease_expires_at),
        bound_by_lease = k.bound_by_lease,
        release_requested = k.release_requested,
        lease_end = k.lease_end,
        login_status = k.login_status,
        plan_id = k.plan_id,
        country_code = k.country_code,
        labels = COALESCE(k.labels, a.labels),
        paused = k.paused,
        draining = k.draining,
        balance_minor = a.balance_minor + k.credit_minor,
        plan_day = k.plan_day,
        day_credited_minor = k.day_credited_minor,
        reserved_minor = k.reserved_minor,
        day_due_at = COALESCE(k.next_day_at, k.day_due_at),
        cooldown_until = COALESCE(k.cooldown_at, k.cooldown_until),
        hold_until = COALESCE(k.hold_at, k.hold_until),
        hold_cause = k.hold_cause,
        hold_count = k.hold_count,
        idle_since = CASE WHEN k.goes_idle THEN k.at ELSE a.idle_since END,
        open_redemption_id = k.open_redemption_id,
        version = k.version + 1,
        change_id = k.change_id,
        updated_at = now()
    FROM cur k
    WHERE a.pool_id = $1
      AND a.account_id = k.account_id
      AND a.token_group = k.seen_token / 16
      AND a.version = k.version
      AND a.change_id = k.seen
      -- IN, which Postgres looks up in a table of hashes; a join with a CTE reads all of it for each row.
      AND (k.redemption_id IS NULL OR k.redemption_id IN (SELECT s.redemption_id FROM settled s))
      AND (k.lease_request_id IS NULL OR k.account_id IN (SELECT l.account_id FROM leased l))
    RETURNING
        a.account_id, a.version, a.change_id, a.updated_at, a.status, a.fencing_token, a.balance_minor,
        a.lease_expires_at, a.open_redemption_id, k.from_status, k.was_open, k.was_request_id, k.was_principal,
        k.lease_for, k.actor, k.principal, k.reason, k.redemption_id
),
event AS (
    INSERT INTO account_events (
        pool_id, account_id, version, change_id, happened_at, actor, principal, reason, from_status, to_status,
        fencing_token, redemption_id, balance_minor, lease_expires_at
    )
    SELECT
        $1, d.account_id, d.version, d.change_id, d.updated_at, d.actor, d.principal, d.reason, d.from_status,
        d.status, d.fencing_token, COALESCE(d.redemption_id, d.open_redemption_id, d.was_open), d.balance_minor,
        CASE WHEN d.status = 'LOCKING' THEN d.lease_expires_at END
    FROM done d
),
-- By arrays, so that they are looked up by their keys also while Postgres takes the table for empty.
renewed AS (
    UPDATE leases l
    SET expires_at = d.lease_expires_at
    FROM done d
    WHERE l.pool_id = $1
      AND l.request_id = d.was_request_id
      AND l.principal = d.was_principal
      AND l.request_id = ANY (ARRAY(
          SELECT e.was_request_id FROM done e WHERE e.status = 'LOCKING' AND e.lease_for IS NOT NULL
      ))
),
ended AS (
    DELETE FROM leases l
    WHERE l.pool_id = $1
      AND l.request_id = ANY (ARRAY(SELECT d.was_request_id FROM done d WHERE d.status <> 'LOCKING'))
      AND (l.request_id, l.principal) IN (
          SELECT d.was_request_id, d.was_principal FROM done d WHERE d.status <> 'LOCKING'
      )
),
-- For the servers that keep the accounts in memory.
told AS (
    INSERT INTO account_changes (pool_id, server_id, account_ids)
    SELECT $1, $4, array_agg(d.account_id)
    FROM done d
    HAVING count(*) > 0
),
-- For those who watch outcomes, by the database's own name and the order of its transactions.
watched AS (
    INSERT INTO redemption_outcomes (pool_id, system_id, timeline, xid, redemption_ids)
    SELECT
        $1,
        (SELECT c.system_identifier FROM pg_control_system() c),
        ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::integer,
        pg_current_xact_id()::text::bigint,
        array_agg(s.redemption_id)
    FROM settled s
    HAVING count(*) > 0
),
audited AS (
    INSERT INTO audit_events (pool_id, principal, peer, action, subject, before, after, reason)
    SELECT $1, n.principal, n.peer, n.action, n.subject, n.before, n.after, n.reason
    FROM unnest($5::audit_note[]) n
    JOIN done d ON d.change_id = n.change_id
)
SELECT
    d.account_id AS "account_id!",
    d.updated_at AS "at!",
    s.amount_minor AS "amount_minor?",
    s.amount_currency AS "amount_currency?",
    s.provider_ref AS "provider_ref?",
    s.attempts AS "attempts?",
    s.last_answer AS "last_answer?",
    s.resolved_by AS "resolved_by?",
    s.resolved_principal AS "resolved_principal?",
    s.resolution_reason AS "resolution_reason?",
    s.resolution_evidence AS "resolution_evidence?"
FROM done d
LEFT JOIN settled s ON s.redemption_id = d.redemption_id
