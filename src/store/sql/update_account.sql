-- Changes what a person may change of an account, where the flag before the value says so. The plan
-- is left alone while the account is LOCKING: then there is no row in the answer. Another plan begins on
-- its first day.
-- $1 pool_id, $2 account_id, $3 login status (null: unchanged), $4 whether to set the plan, $5 plan,
-- $6 whether to set the country, $7 country, $8 labels (null: unchanged), $9 who changes it,
-- $10 whether it is paused and $11 draining (null: unchanged), $12 whether to lift its hold.
WITH locked AS MATERIALIZED (
    SELECT
        a.account_id,
        $4::bool AND a.plan_id IS DISTINCT FROM $5::text AS replanned,
        COALESCE(a.balance_minor >= n.target_minor, false) AS target_reached
    FROM accounts a
    LEFT JOIN plans n ON n.pool_id = $1 AND n.plan_id = $5
    WHERE a.pool_id = $1
      AND a.account_id = $2
      AND NOT ($4::bool AND a.status = 'LOCKING')
    ORDER BY a.account_id
    FOR NO KEY UPDATE OF a
),
changed AS (
    UPDATE accounts a
    SET login_status = COALESCE($3::text, a.login_status),
        status = CASE
            WHEN NOT l.replanned THEN a.status
            WHEN l.target_reached THEN 'COMPLETED'
            WHEN a.status = 'COMPLETED' THEN 'WAITING'
            ELSE a.status
        END,
        plan_id = CASE WHEN l.replanned THEN $5::text ELSE a.plan_id END,
        plan_day = CASE WHEN l.replanned THEN 1 ELSE a.plan_day END,
        day_credited_minor = CASE WHEN l.replanned THEN 0 ELSE a.day_credited_minor END,
        day_due_at = CASE WHEN l.replanned THEN NULL ELSE a.day_due_at END,
        country_code = CASE WHEN $6::bool THEN $7::text ELSE a.country_code END,
        labels = COALESCE($8::jsonb, a.labels),
        paused = COALESCE($10::bool, a.paused),
        draining = COALESCE($11::bool, a.draining),
        hold_until = CASE WHEN $12::bool THEN NULL ELSE a.hold_until END,
        hold_cause = CASE WHEN $12::bool THEN NULL ELSE a.hold_cause END,
        hold_count = CASE WHEN $12::bool THEN 0 ELSE a.hold_count END,
        change_actor = $9,
        change_reason = 'updated'
    FROM locked l
    WHERE a.pool_id = $1
      AND a.account_id = l.account_id
      AND NOT ($4::bool AND a.status = 'LOCKING')
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
FROM changed x
