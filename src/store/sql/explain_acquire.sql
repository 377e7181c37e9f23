-- Why no account was to be had: each of the pool's accounts is counted once, under the first cause
-- that holds for it. Changes nothing.
-- $1 pool_id; the selector, null where it does not say: $2 account_id, $3 plan_id, $4 country_code,
-- $5 min_headroom in minor units; $6 labels; $7 account ids that are not wanted;
-- $8 the card's country, which an account must have where its own is known.
SELECT
    count(*) FILTER (WHERE c.cause = 'other') AS "not_selected!",
    count(*) FILTER (WHERE c.cause = 'completed') AS "completed!",
    count(*) FILTER (WHERE c.cause = 'inactive') AS "inactive!",
    count(*) FILTER (WHERE c.cause = 'too_full') AS "too_full!",
    count(*) FILTER (WHERE c.cause = 'locked') AS "locked!",
    count(*) FILTER (WHERE c.cause = 'free') AS "free!"
FROM (
    SELECT CASE
        WHEN NOT (
            ($2::text IS NULL OR a.account_id = $2)
            AND ($3::text IS NULL OR a.plan_id = $3 OR a.plan_id IS NULL)
            AND ($4::text IS NULL OR COALESCE(a.country_code = $4, false))
            AND ($8::text IS NULL OR a.country_code IS NULL OR a.country_code = $8)
            AND a.labels @> $6::jsonb
            AND a.account_id <> ALL ($7::text[])
        ) THEN 'other'
        WHEN a.status = 'COMPLETED' THEN 'completed'
        WHEN a.login_status <> 'ACTIVE' THEN 'inactive'
        WHEN p.target_minor <= a.balance_minor THEN 'too_full'
        WHEN $5::bigint IS NOT NULL AND p.target_minor - a.balance_minor < $5 THEN 'too_full'
        WHEN a.status = 'LOCKING' THEN 'locked'
        ELSE 'free'
    END AS cause
    FROM accounts a
    LEFT JOIN plans p ON p.pool_id = $1 AND p.plan_id = COALESCE(a.plan_id, $3::text)
    WHERE a.pool_id = $1
) c
