-- How leases ended that are not the last ones of their accounts. Changes nothing.
-- $1 pool_id; one element for each: $2 account ids, $3 fencing tokens.
SELECT
    w.account_id AS "account_id!",
    w.token AS "token!",
    e.reason AS "reason!"
FROM unnest($2::text[], $3::bigint[]) AS w (account_id, token)
CROSS JOIN LATERAL (
    SELECT e.reason
    FROM account_events e
    WHERE e.pool_id = $1
      AND e.account_id = w.account_id
      AND e.fencing_token = w.token
      AND e.to_status <> 'LOCKING'
    ORDER BY e.version DESC
    LIMIT 1
) e
