-- Whether any item of a batch was begun: requests of the principal $4 from $2 to before $3.
SELECT EXISTS (
    SELECT
    FROM redemptions r
    WHERE r.pool_id = $1 AND r.request_id >= $2 AND r.request_id < $3 AND r.principal = $4
) AS "exists!"
