-- Accounts whose lease has run out, and that have no open redemption. Changes nothing.
-- $1 pool_id, $2 how many at the most, $3 whose time passed no longer ago than this (null: however long ago),
-- $4 accounts that cannot be written.
SELECT
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
    a.day_due_at AS "day_due_at?",
    a.cooldown_until AS "cooldown_until?",
    a.hold_until AS "hold_until?",
    a.hold_cause AS "hold_cause?",
    a.hold_count AS "hold_count!",
    a.paused AS "paused!",
    a.draining AS "draining!",
    a.fencing_token AS "fencing_token!",
    a.resume_status AS "resume_status?",
    a.holder AS "holder?",
    a.lease_principal AS "lease_principal!",
    a.lease_request_id AS "lease_request_id?",
    a.lease_acquired_at AS "lease_acquired_at?",
    a.lease_expires_at AS "lease_expires_at?",
    a.lease_end AS "lease_end?",
    a.bound_by_lease AS "bound_by_lease!",
    a.release_requested AS "release_requested!",
    a.open_redemption_id AS "open_redemption_id?",
    a.idle_since AS "idle_since!",
    a.version AS "version!",
    a.change_id AS "change_id!",
    a.created_at AS "created_at!",
    a.updated_at AS "updated_at!",
    now() AS "db_now!"
FROM leases l
JOIN accounts a ON a.pool_id = $1 AND a.account_id = l.account_id
WHERE l.pool_id = $1
  AND l.expires_at <= now()
  AND l.expires_at >= COALESCE(now() - $3::interval, '-infinity')
  AND a.lease_request_id = l.request_id
  AND a.lease_principal = l.principal
  AND a.status = 'LOCKING'
  AND a.open_redemption_id IS NULL
  AND a.lease_expires_at <= now()
  AND a.account_id <> ALL ($4::text[])
ORDER BY a.account_id
LIMIT $2
