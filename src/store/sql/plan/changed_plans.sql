-- Plans of any pool that were changed no longer than $1 ago, and when: accounts that were completed may not have their
-- target any more. Null: all that were ever changed. Of no pool: the caller does not know the pools.
SELECT n.pool_id, n.plan_id, n.updated_at
FROM plans n
WHERE n.updated_at > n.created_at AND ($1::interval IS NULL OR n.updated_at > now() - $1::interval)
