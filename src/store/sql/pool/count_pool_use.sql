-- Why a pool is not deleted: how many accounts and redemptions it has, at most $2 of each, and whether it ever had an
-- account. $1 pool_id.
SELECT
    (SELECT count(*) FROM (SELECT FROM accounts a WHERE a.pool_id = $1 LIMIT $2) c) AS "accounts!",
    (SELECT count(*) FROM (SELECT FROM redemptions r WHERE r.pool_id = $1 LIMIT $2) c) AS "redemptions!",
    EXISTS (SELECT FROM account_events e WHERE e.pool_id = $1) AS "had_accounts!"
