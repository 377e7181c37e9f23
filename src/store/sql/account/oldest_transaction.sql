-- The oldest transaction that is in progress. All before it have ended.
SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS "oldest!"
