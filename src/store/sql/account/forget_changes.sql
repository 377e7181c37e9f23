-- Removes what account_changes has of transactions that ended before a snapshot. $1 pool_id, $2 the oldest transaction
-- that was in progress then, $3 how many rows at the most.
DELETE FROM account_changes c
WHERE c.pool_id = $1
  AND (c.xid, c.by_hand) IN (
      SELECT o.xid, o.by_hand
      FROM account_changes o
      WHERE o.pool_id = $1 AND o.xid < $2
      ORDER BY o.xid
      LIMIT $3
  )
