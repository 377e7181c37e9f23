-- Whether a pool has more than $2 accounts. Changes nothing, and reads no more accounts than that.
-- $1 pool_id.
SELECT EXISTS (SELECT FROM accounts a WHERE a.pool_id = $1 OFFSET $2::bigint) AS "more!"
