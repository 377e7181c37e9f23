-- Release, shape (a): leases end, and their accounts take the status they would go back to. Where a
-- redemption is open the wish is noted, and settling ends the lease.
-- $1 pool_id; one element for each release: $2 account ids, $3 fencing tokens.
-- A lease without a row in the answer has ended before.
WITH wanted AS MATERIALIZED (
    SELECT w.account_id, w.token
    FROM unnest($2::text[], $3::bigint[]) AS w (account_id, token)
),
locked AS MATERIALIZED (
    SELECT a.account_id, w.token, a.open_redemption_id IS NULL AS ends
    FROM wanted w
    JOIN accounts a ON a.pool_id = $1 AND a.account_id = w.account_id
    WHERE a.pool_id = $1 AND a.status = 'LOCKING' AND a.fencing_token = w.token
    ORDER BY a.account_id
    FOR NO KEY UPDATE OF a
),
released AS (
    UPDATE accounts a
    SET status = CASE WHEN l.ends THEN a.resume_status ELSE a.status END,
        release_requested = NOT l.ends,
        plan_id = CASE WHEN l.ends AND a.bound_by_lease THEN NULL ELSE a.plan_id END,
        -- A late credit may have come under the plan that it leaves.
        day_credited_minor = CASE
            WHEN l.ends AND a.bound_by_lease THEN 0 ELSE a.day_credited_minor
        END,
        bound_by_lease = a.bound_by_lease AND NOT l.ends,
        reserved_minor = CASE WHEN l.ends THEN NULL ELSE a.reserved_minor END,
        lease_end = CASE WHEN l.ends THEN 'released' END,
        idle_since = now(),
        change_actor = a.holder,
        change_reason = CASE WHEN l.ends THEN 'released' ELSE 'release_requested' END
    FROM locked l
    WHERE a.pool_id = $1
      AND a.account_id = l.account_id
      AND a.status = 'LOCKING'
      AND a.fencing_token = l.token
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
FROM released x
