-- A pool's accounts after $2, at most $3; of a status ($4), a login status ($5), a plan ($6), where
-- they are not null.
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
    now() AS "db_now!"
FROM accounts a
WHERE a.pool_id = $1
  AND a.account_id > $2
  AND ($4::text IS NULL OR a.status = $4)
  AND ($5::text IS NULL OR a.login_status = $5)
  AND ($6::text IS NULL OR a.plan_id = $6)
ORDER BY a.account_id
LIMIT $3
