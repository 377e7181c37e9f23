-- Whether a transaction has recorded outcomes, as somebody was told. $1 pool_id, $2 system, $3 timeline, $4 transaction.
SELECT EXISTS (
    SELECT FROM redemption_outcomes o
    WHERE o.pool_id = $1 AND o.system_id = $2 AND o.timeline = $3 AND o.xid = $4
) AS "exist!"
