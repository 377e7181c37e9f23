-- Which redemptions got an outcome, by the transactions that recorded it, in their order; and the database as this
-- statement sees it: which one it is, and its snapshot. Changes nothing.
-- $1 pool_id; $2 the system and $3 the timeline of the snapshot before, $4 the transactions that were in progress then
-- and are wanted; $5 system, $6 timeline and $7 transaction from which all are wanted; $8 how many at the most.
-- One row at least, which has no transaction where there are none.
WITH earlier AS (
    SELECT o.system_id, o.timeline, o.xid, o.redemption_ids
    FROM unnest($4::bigint[]) AS w (xid)
    JOIN redemption_outcomes o
        ON o.pool_id = $1 AND o.system_id = $2 AND o.timeline = $3 AND o.xid = w.xid
),
later AS (
    SELECT o.system_id, o.timeline, o.xid, o.redemption_ids
    FROM redemption_outcomes o
    WHERE o.pool_id = $1
      AND (o.system_id, o.timeline, o.xid) >= ($5::bigint, $6::integer, $7::bigint)
    ORDER BY o.system_id, o.timeline, o.xid
    LIMIT $8
),
found AS (
    SELECT e.system_id, e.timeline, e.xid, e.redemption_ids FROM earlier e
    UNION ALL
    SELECT l.system_id, l.timeline, l.xid, l.redemption_ids FROM later l
),
of_now AS (
    SELECT
        c.system_identifier,
        -- The name of a segment of the log begins with the timeline. That of the last checkpoint may be an older one. Null
        -- on a standby, which has none of its own.
        CASE WHEN NOT pg_is_in_recovery() THEN
            ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::integer
        END AS timeline,
        pg_current_snapshot()::text AS snapshot
    FROM pg_control_system() c
)
SELECT
    n.system_identifier AS "now_system_id!",
    n.timeline AS "now_timeline?",
    n.snapshot AS "now_snapshot!",
    f.system_id AS "system_id?",
    f.timeline AS "timeline?",
    f.xid AS "xid?",
    f.redemption_ids AS "redemption_ids?"
FROM of_now n
LEFT JOIN found f ON true
ORDER BY f.system_id, f.timeline, f.xid
LIMIT $8
