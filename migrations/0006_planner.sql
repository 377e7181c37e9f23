-- What Postgres's planner expects. Statements are planned once, for any pool. Told that a table has one pool alone,
-- Postgres does not take all rows of a pool for few because most pools are small, and reads each row by its key. It
-- counts at once, so that running servers plan anew. Where tables are distributed, their nodes plan for themselves,
-- and these settings cannot be made.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'citus') THEN
        ALTER TABLE accounts ALTER COLUMN pool_id SET (n_distinct = 1);
        ALTER TABLE redemptions ALTER COLUMN pool_id SET (n_distinct = 1);
        ALTER TABLE leases ALTER COLUMN pool_id SET (n_distinct = 1);
        ANALYZE accounts, redemptions;
    END IF;
END
$$;
