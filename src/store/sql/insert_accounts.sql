-- Creates accounts of one pool: WAITING, or COMPLETED when the balance has reached the plan's target.
-- An account that is or was there already (the table's trigger leaves it out), or that names a plan which is not,
-- has no row in the answer.
-- $1 pool_id; one element for each account: $2 account ids, $3 login statuses, $4 plan ids,
-- $5 country codes, $6 balances in minor units, $7 labels; $8 who creates them.
INSERT INTO accounts AS a (
    pool_id, account_id, status, login_status, plan_id, country_code, balance_minor, labels, change_actor
)
SELECT
    $1, w.account_id,
    CASE WHEN w.balance_minor >= n.target_minor THEN 'COMPLETED' ELSE 'WAITING' END,
    w.login_status, w.plan_id, w.country_code, w.balance_minor, w.labels, $8::text
FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::jsonb[])
    AS w (account_id, login_status, plan_id, country_code, balance_minor, labels)
LEFT JOIN plans n ON n.pool_id = $1 AND n.plan_id = w.plan_id
WHERE w.plan_id IS NULL OR n.plan_id IS NOT NULL
ORDER BY w.account_id
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
    a.created_at AS "db_now!"
