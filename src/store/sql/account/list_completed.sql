-- Completed accounts of a plan whose balance is below its target, and those that a lease would give back as completed:
-- domain/account.rs decides whether they are reopened. Changes nothing.
-- $1 pool_id, $2 plan_id, $3 the plan's target, $4 after which account, $5 how many at the most, $6 accounts that cannot
-- be written.
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
FROM accounts a
WHERE a.pool_id = $1
  AND a.plan_id = $2
  AND a.account_id > $4
  AND (a.status = 'COMPLETED' OR a.status = 'LOCKING' AND a.resume_status = 'COMPLETED')
  AND a.balance_minor < $3::bigint
  AND a.account_id <> ALL ($6::text[])
ORDER BY a.account_id
LIMIT $5
