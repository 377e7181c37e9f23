-- Release, shape (c): leases end, and their accounts take the status they would go back to. Where a
-- redemption is open the wish is noted, and settling ends the lease.
-- $1 pool_id; one element for each release, in the order of their accounts: $2 account ids, $3 fencing
-- tokens.
-- A lease without a row in the answer has ended before.
UPDATE accounts a
SET status = CASE WHEN a.open_redemption_id IS NULL THEN a.resume_status ELSE a.status END,
    release_requested = a.open_redemption_id IS NOT NULL,
    plan_id = CASE WHEN a.open_redemption_id IS NULL AND a.bound_by_lease THEN NULL ELSE a.plan_id END,
    -- A late credit may have come under the plan that it leaves.
    day_credited_minor = CASE
        WHEN a.open_redemption_id IS NULL AND a.bound_by_lease THEN 0 ELSE a.day_credited_minor
    END,
    bound_by_lease = a.bound_by_lease AND a.open_redemption_id IS NOT NULL,
    reserved_minor = CASE WHEN a.open_redemption_id IS NOT NULL THEN a.reserved_minor END,
    lease_end = CASE WHEN a.open_redemption_id IS NULL THEN 'released' END,
    idle_since = now(),
    change_actor = a.holder,
    change_reason = CASE WHEN a.open_redemption_id IS NULL THEN 'released' ELSE 'release_requested' END
FROM unnest($2::text[], $3::bigint[]) AS w (account_id, token)
WHERE a.pool_id = $1
  AND a.account_id = w.account_id
  AND a.status = 'LOCKING'
  AND a.fencing_token = w.token
RETURNING
    a.account_id AS "account_id!",
    a.status AS "status!",
    a.login_status AS "login_status!",
    a.plan_id AS "plan_id?",
    a.country_code AS "country_code?",
    a.balance_minor AS "balance_minor!",
    a.labels AS "labels!",
    a.plan_day AS "plan_day!",
    a.day_credited_minor AS "day_credited_minor!",
    a.reserved_minor AS "reserved_minor?",
    a.usable_at AS "usable_at?",
    a.hold_until AS "hold_until?",
    a.hold_cause AS "hold_cause?",
    a.hold_count AS "hold_count!",
    a.paused AS "paused!",
    a.draining AS "draining!",
    a.fencing_token AS "fencing_token!",
    a.holder AS "holder?",
    a.lease_acquired_at AS "lease_acquired_at?",
    a.lease_expires_at AS "lease_expires_at?",
    a.release_requested AS "release_requested!",
    a.open_redemption_id AS "open_redemption_id?",
    a.created_at AS "created_at!",
    a.updated_at AS "updated_at!",
    -- The trigger of the table makes it the time of this statement.
    a.updated_at AS "db_now!"
