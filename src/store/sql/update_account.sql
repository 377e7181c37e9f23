-- Changes what a person may change of an account, where the flag before the value says so. The plan
-- is left alone while the account is LOCKING: then there is no row in the answer.
-- $1 pool_id, $2 account_id, $3 login status (null: unchanged), $4 whether to set the plan, $5 plan,
-- $6 whether to set the country, $7 country, $8 labels (null: unchanged), $9 who changes it.
WITH changed AS (
    UPDATE accounts a
    SET login_status = COALESCE($3::text, a.login_status),
        plan_id = CASE WHEN $4::bool THEN $5::text ELSE a.plan_id END,
        country_code = CASE WHEN $6::bool THEN $7::text ELSE a.country_code END,
        labels = COALESCE($8::jsonb, a.labels),
        change_actor = $9,
        change_reason = 'updated'
    WHERE a.pool_id = $1
      AND a.account_id = $2
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
