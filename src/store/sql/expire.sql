-- Expire, shape (a): leases whose time has passed end, unless a redemption is open, and their
-- accounts take the status they would go back to.
-- $1 pool_id, $2 how many at the most, $3 who looks, $4 whose time passed no longer ago than this; null:
-- however long ago; $5 account ids, $6 whether only these are meant, or all but these.
-- lease_request_id >= '' is any that is there: the condition of the index accounts_lease_end.
-- SKIP LOCKED: somebody is ending or renewing those just now.
WITH due AS MATERIALIZED (
    SELECT a.account_id, a.fencing_token
    FROM accounts a
    WHERE a.pool_id = $1
      AND a.lease_request_id >= ''
      AND a.status = 'LOCKING'
      AND a.open_redemption_id IS NULL
      AND a.lease_expires_at <= now()
      AND a.lease_expires_at >= COALESCE(now() - $4::interval, '-infinity')
      AND (a.account_id = ANY ($5::text[])) = $6::boolean
    ORDER BY a.account_id
    LIMIT $2
    FOR NO KEY UPDATE OF a SKIP LOCKED
),
expired AS (
    UPDATE accounts a
    SET status = a.resume_status,
        plan_id = CASE WHEN a.bound_by_lease THEN NULL ELSE a.plan_id END,
        -- A late credit may have come under the plan that it leaves.
        day_credited_minor = CASE WHEN a.bound_by_lease THEN 0 ELSE a.day_credited_minor END,
        bound_by_lease = false,
        reserved_minor = NULL,
        lease_end = 'expired',
        idle_since = now(),
        change_actor = $3,
        change_reason = 'expired'
    FROM due d
    WHERE a.pool_id = $1
      AND a.account_id = d.account_id
      AND a.fencing_token = d.fencing_token
      AND a.status = 'LOCKING'
      AND a.open_redemption_id IS NULL
      AND a.lease_expires_at <= now()
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
FROM expired x
