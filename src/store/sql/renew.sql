-- Renew, shape (a): leases end their duration from now instead.
-- $1 pool_id; one element for each renewal: $2 account ids, $3 fencing tokens, $4 lease durations.
-- A lease without a row in the answer is not its holder's any more, or its release was asked for.
WITH wanted AS MATERIALIZED (
    SELECT w.account_id, w.token, w.ttl
    FROM unnest($2::text[], $3::bigint[], $4::interval[]) AS w (account_id, token, ttl)
),
locked AS MATERIALIZED (
    SELECT a.account_id, w.token, w.ttl
    FROM wanted w
    JOIN accounts a ON a.pool_id = $1 AND a.account_id = w.account_id
    WHERE a.pool_id = $1
      AND a.status = 'LOCKING'
      AND a.fencing_token = w.token
      AND a.lease_expires_at > now()
      AND NOT a.release_requested
    ORDER BY a.account_id
    FOR NO KEY UPDATE OF a
),
renewed AS (
    UPDATE accounts a
    SET lease_expires_at = ((now() AT TIME ZONE 'utc') + l.ttl) AT TIME ZONE 'utc',
        change_actor = a.holder,
        change_reason = 'renewed'
    FROM locked l
    WHERE a.pool_id = $1
      AND a.account_id = l.account_id
      AND a.status = 'LOCKING'
      AND a.fencing_token = l.token
      AND a.lease_expires_at > now()
      AND NOT a.release_requested
    RETURNING a.*
)
SELECT
    x.account_id AS "account_id!",
    x.status AS "status!",
    x.login_status AS "login_status!",
    x.plan_id AS "plan_id?",
    x.country_code AS "country_code?",
    x.balance_minor AS "balance_minor!",
    x.labels AS "labels!",
    x.plan_day AS "plan_day!",
    x.day_credited_minor AS "day_credited_minor!",
    x.reserved_minor AS "reserved_minor?",
    x.usable_at AS "usable_at?",
    x.hold_until AS "hold_until?",
    x.hold_cause AS "hold_cause?",
    x.hold_count AS "hold_count!",
    x.paused AS "paused!",
    x.draining AS "draining!",
    x.fencing_token AS "fencing_token!",
    x.holder AS "holder?",
    x.lease_acquired_at AS "lease_acquired_at?",
    x.lease_expires_at AS "lease_expires_at?",
    x.release_requested AS "release_requested!",
    x.open_redemption_id AS "open_redemption_id?",
    x.created_at AS "created_at!",
    x.updated_at AS "updated_at!",
    now() AS "db_now!"
FROM renewed x
