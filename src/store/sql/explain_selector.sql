-- Whether what an acquisition names is there at all. Changes nothing.
-- $1 pool_id, $2 plan_id, $3 account_id (null where it names none).
SELECT
    EXISTS (SELECT FROM pools p WHERE p.pool_id = $1) AS "pool_exists!",
    EXISTS (SELECT FROM pools p WHERE p.pool_id = $1 AND p.paused) AS "pool_paused!",
    EXISTS (SELECT FROM pools p WHERE p.pool_id = $1 AND p.draining) AS "pool_draining!",
    $2::text IS NULL OR EXISTS (
        SELECT FROM plans n WHERE n.pool_id = $1 AND n.plan_id = $2
    ) AS "plan_exists!",
    $3::text IS NULL OR EXISTS (
        SELECT FROM accounts a WHERE a.pool_id = $1 AND a.account_id = $3
    ) AS "account_exists!"
