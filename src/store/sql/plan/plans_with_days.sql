-- Plans of any pool that have days and were changed no longer than $1 ago: accounts that were LOCKING
-- then may have a day to end. Null: all that have days. Of no pool: the caller does not know the pools.
SELECT n.pool_id, n.plan_id
FROM plans n
WHERE (
    $1::interval IS NULL
    OR (n.updated_at > now() - $1::interval AND n.updated_at > n.created_at)
)
  AND cardinality(n.day_amounts_minor) > 1
