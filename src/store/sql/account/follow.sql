-- What servers that keep a pool's accounts in memory have to know: the pool's revision, and the accounts that others
-- changed since a snapshot. Changes nothing.
-- $1 pool_id, $2 the snapshot (null: nothing is known yet), $3 the server, whose own changes it knows.
-- "are_many": a person changed many, and they are not named. A change is new where the snapshot did not see its transaction: it began later, or it was in progress.
WITH changed AS MATERIALIZED (
    SELECT c.account_ids
    FROM account_changes c
    WHERE c.pool_id = $1
      AND c.xid >= pg_snapshot_xmax($2::text::pg_snapshot)::text::bigint
      AND c.server_id IS DISTINCT FROM $3
    UNION ALL
    SELECT c.account_ids
    FROM pg_snapshot_xip($2::text::pg_snapshot) AS w (xid)
    JOIN account_changes c ON c.pool_id = $1 AND c.xid = w.xid::text::bigint
    WHERE c.server_id IS DISTINCT FROM $3
),
of_pool AS MATERIALIZED (
    SELECT p.revision FROM pools p WHERE p.pool_id = $1
)
SELECT
    o.revision AS "revision!",
    now() AS "db_now!",
    pg_postmaster_start_time() AS "started!",
    pg_current_snapshot()::text AS "snapshot!",
    EXISTS (SELECT FROM changed c WHERE c.account_ids IS NULL) AS "are_many!",
    ARRAY(SELECT DISTINCT unnest(c.account_ids) FROM changed c) AS "account_ids!"
FROM of_pool o
