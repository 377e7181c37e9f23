-- The leases that requests have already, on their accounts. Whether one still lives is for the caller to
-- see. $1 pool_id, $2 request ids.
SELECT
    w.request_id AS "request_id!",
    false AS "fresh!",
    x.resume_status AS "resume_status!",
    NULL::text AS "walk_plan_key?",
    NULL::bigint AS "walk_first?",
    NULL::timestamptz AS "walk_since?",
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
FROM unnest($2::text[]) AS w (request_id)
-- LIMIT: there is one at the most, and each is looked for by itself.
CROSS JOIN LATERAL (
    SELECT a.* FROM accounts a WHERE a.pool_id = $1 AND a.lease_request_id = w.request_id LIMIT 1
) x
