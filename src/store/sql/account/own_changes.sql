-- Which change made a version of an account, for changes whose reply was lost.
-- $1 pool_id; one element for each: $2 account ids, $3 versions.
SELECT
    e.account_id AS "account_id!",
    e.change_id AS "change_id?"
FROM unnest($2::text[], $3::bigint[]) AS w (account_id, version)
JOIN account_events e ON e.pool_id = $1 AND e.account_id = w.account_id AND e.version = w.version
