-- Creates accounts of one pool: WAITING, or COMPLETED when the balance has reached the plan's target. An account
-- that is or was there already, or that names a plan which is not, has no row in the answer; none has one where the pool was deleted. Its first event makes
-- an id its account's own. Events are keyed by account and version, are never taken away, and the first has
-- version 1.
-- $1 pool_id; one element for each account: $2 account ids, $3 login statuses, $4 plan ids, $5 country codes, $6
-- balances in minor units, $7 labels, $10 encrypted credentials or null; $8 who creates them, by their
-- word and ($11) as authentication found it, $12 from where, $13 whether each is recorded for itself; $9 the server.
WITH new AS MATERIALIZED (
    SELECT
        w.*,
        gen_random_uuid() AS change_id,
        CASE WHEN w.balance_minor >= n.target_minor THEN 'COMPLETED' ELSE 'WAITING' END AS status
    FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::jsonb[], $10::bytea[])
        AS w (account_id, login_status, plan_id, country_code, balance_minor, labels, credentials)
    LEFT JOIN plans n ON n.pool_id = $1 AND n.plan_id = w.plan_id
    WHERE (w.plan_id IS NULL OR n.plan_id IS NOT NULL)
      AND EXISTS (SELECT FROM pools p WHERE p.pool_id = $1)
    ORDER BY w.account_id
),
event AS (
    INSERT INTO account_events (
        pool_id, account_id, version, change_id, happened_at, actor, principal, reason, to_status,
        fencing_token, balance_minor
    )
    SELECT $1, n.account_id, 1, n.change_id, now(), $8, $11, 'created', n.status, 0, n.balance_minor
    FROM new n
    ON CONFLICT DO NOTHING
    RETURNING account_id
),
created AS (
    INSERT INTO accounts AS a (
        pool_id, account_id, status, login_status, plan_id, country_code, balance_minor, labels, version, change_id
    )
    SELECT
        $1, n.account_id, n.status, n.login_status, n.plan_id, n.country_code, n.balance_minor, n.labels, 1,
        n.change_id
    FROM new n
    JOIN event e ON e.account_id = n.account_id
    RETURNING a.*
),
kept AS (
    INSERT INTO account_credentials (pool_id, account_id, credentials)
    SELECT $1, n.account_id, n.credentials
    FROM new n
    JOIN created c ON c.account_id = n.account_id
    WHERE n.credentials IS NOT NULL
),
-- For the servers that keep the accounts in memory.
told AS (
    INSERT INTO account_changes (pool_id, server_id, account_ids)
    SELECT $1, $9, array_agg(c.account_id)
    FROM created c
    HAVING count(*) > 0
),
audited AS (
    INSERT INTO audit_events (pool_id, principal, peer, action, subject, after)
    SELECT
        $1, $11, $12, 'CreateAccount', c.account_id,
        jsonb_strip_nulls(jsonb_build_object(
            'login_status', c.login_status, 'plan_id', c.plan_id, 'country_code', c.country_code,
            'balance_minor', c.balance_minor, 'labels', c.labels
        ))
    FROM created c
    WHERE $13::bool
)
SELECT
    c.account_id AS "account_id!",
    c.status AS "status!",
    c.login_status AS "login_status!",
    c.plan_id AS "plan_id?",
    c.country_code AS "country_code?",
    c.balance_minor AS "balance_minor!",
    c.labels AS "labels!",
    c.plan_day AS "plan_day!",
    c.day_credited_minor AS "day_credited_minor!",
    c.reserved_minor AS "reserved_minor?",
    c.day_due_at AS "day_due_at?",
    c.cooldown_until AS "cooldown_until?",
    c.hold_until AS "hold_until?",
    c.hold_cause AS "hold_cause?",
    c.hold_count AS "hold_count!",
    c.paused AS "paused!",
    c.draining AS "draining!",
    c.fencing_token AS "fencing_token!",
    c.resume_status AS "resume_status?",
    c.holder AS "holder?",
    c.lease_principal AS "lease_principal!",
    c.lease_request_id AS "lease_request_id?",
    c.lease_acquired_at AS "lease_acquired_at?",
    c.lease_expires_at AS "lease_expires_at?",
    c.lease_end AS "lease_end?",
    c.bound_by_lease AS "bound_by_lease!",
    c.release_requested AS "release_requested!",
    c.open_redemption_id AS "open_redemption_id?",
    c.idle_since AS "idle_since!",
    c.version AS "version!",
    c.change_id AS "change_id!",
    c.created_at AS "created_at!",
    c.updated_at AS "updated_at!",
    c.created_at AS "db_now!"
FROM created c
